"""The memory governor: reads what the process uses, decides in which step that is, and has done what the step asks for.

There is one in a process, whatever the number of apps: memory belongs to the process. The first app that opens drives
it with its clock and its settings; the others share it, and the next one takes over when the first closes. A reading is
a duty of that clock; while memory grows towards a threshold, an alarm of it reads sooner. Nothing here talks to the
server.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from headrace.memory.actions import Actions, freed
from headrace.memory.alerts import Alerts
from headrace.memory.belongings import register_belongings
from headrace.memory.collector import Collector
from headrace.memory.growth import NO_SLOPE, Series, Slope
from headrace.memory.holders import find_holders
from headrace.memory.leaks import Leaks
from headrace.memory.limits import MIB
from headrace.memory.members import Members
from headrace.memory.probes import read_blocks, read_peak, read_proportional
from headrace.memory.reading import Reader, Reading
from headrace.memory.restraint import Restraint
from headrace.memory.status import Buffer, MemoryStatus, Optimization, WorkerMemory
from headrace.memory.steps import Pacing, Step, Thresholds, next_step
from headrace.options import check_seconds, check_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.memory.actions import Cache
    from headrace.memory.holders import Holder
    from headrace.memory.members import Member
    from headrace.memory.restraint import Plea, Restrained
    from headrace.memory.tracing import Trace

logger = logging.getLogger(__name__)

#: Least time between two readings, seconds, and that in the steps high and critical.
SOONEST: Final = 0.1
SOON: Final = 1.0
#: What is wanted of a calm moment is done anyway at the first reading after this long, seconds.
CALM_PATIENCE: Final = 2.0


class Governor:
    """Watch the memory of this process and act on it.

    Args:
        reader: Reads what is used; another one only in tests.

    Attributes:
        wants_calm: Something waits for a moment between two batches of jobs: call `calm` then.
    """

    def __init__(self, reader: Reader | None = None) -> None:
        self.collector = Collector()
        self.leaks = Leaks()
        self.wants_calm = False
        self._members = Members(self.tick, self._driven)
        self._reader = reader or Reader()
        self._actions = Actions(self.collector)
        self._belongings: dict[Member, list[Cache]] = {}
        self._restraint = Restraint()
        self._alerts = Alerts(self._members.publish)
        self._series = Series()
        self._recent: Slope = NO_SLOPE
        self._last: Reading | None = None
        self._pacing = Pacing()
        self._step = Step.NORMAL
        self._processes = 1
        self._is_own = False
        self._tell: Callable[[Plea], None] | None = None
        self._relief_since = 0.0
        self._holders: list[Holder] = []
        self._predecessor = ""
        self._readings = 0
        self._cost = 0.0

    # Apps and workers

    def join(self, member: Member) -> None:
        """Share the governor with an app that opened; called on its loop."""
        self._members.join(member)
        self._belongings[member] = register_belongings(self._actions, member)

    def leave(self, member: Member) -> None:
        """Forget an app that closes; called on its loop."""
        self._members.leave(member)
        for cache in self._belongings.pop(member, ()):
            cache.close()

    def claim(
        self, *, processes: int, replace: Callable[[Plea], None] | None, tell: Callable[[Plea], None] | None = None,
        predecessor: str = "", quick: int = 0,
    ) -> None:  # fmt: skip
        """Say that this process is a worker's own, started by the command `headrace worker`.

        Args:
            processes: Worker processes that share the limit.
            replace: Starts another process in the place of this one, None when nobody can.
            tell: Takes note of each step from and to high or critical, for whoever sees the end of this process.
            predecessor: How the process ended that this one replaces, if it ran out of memory.
            quick: How many processes in a row before this one used up their memory soon after their start.
        """
        self._processes, self._is_own = processes, True
        self._restraint.replace, self._tell, self._predecessor = replace, tell, predecessor
        self._restraint.quick = quick

    def attach(self, worker: Restrained) -> None:
        """Hold back a worker that has started, and set the collector for it; called on its loop."""
        wanted = self._members.settings.memory_collector
        if wanted == "on" or (wanted == "auto" and self._is_own):
            self.collector.tune()
        self._restraint.attach(worker)
        self._restraint.baseline = base = self._read()
        if self._members.settings.memory_enabled:
            self._reader.hold_back(base.limit)
        logger.info("memory limit", extra={"limit": str(base.limit), "used_mb": base.used_bytes // MIB})
        if self._predecessor:
            self._members.publish("memory.killed", end=self._predecessor)

    def detach(self, worker: Restrained) -> None:
        """Forget a worker that stops; the collector is set back after the last one."""
        self._restraint.detach(worker)
        if not self._restraint.workers:
            self.collector.restore()
            self._reader.reserve.release()

    # What users ask

    def register_cache(
        self, name: str, release: Callable[[], object], *, size: Callable[[], int] | None = None,
        limit_bytes: int | None = None,
    ) -> Cache:  # fmt: skip
        """Have a cache emptied when memory runs short.

        Args:
            name: What it is.
            release: Empties it; called on the loop of the app, and must not take long.
            size: Returns its bytes, for the status.
            limit_bytes: The most that it holds, for the status.

        Returns:
            The registration; `close` ends it.

        Raises:
            OptionError: An argument is malformed, or there are 1,024 registrations.
        """
        return self._actions.register(name, release, size=size, limit_bytes=limit_bytes)

    def report_buffer(self, name: str, size: Callable[[], int], limit_bytes: int) -> Cache:
        """Show something bounded that holds memory in the status; it is not emptied. `close` ends it."""
        return self._actions.register(name, None, size=size, limit_bytes=limit_bytes)

    async def optimize(self, *, aggressive: bool = False) -> Optimization:
        """Free what can be freed, now; the process stands still meanwhile, for as long as the result says.

        Args:
            aggressive: Also collect what was frozen at the start and empty caches of the interpreter, and find what
                holds the rest.
        """
        began = time.perf_counter()
        effects = self._actions.run("asked", aggressive=aggressive)
        holders = find_holders() if aggressive else []
        return Optimization(freed(effects), time.perf_counter() - began, tuple(effects), tuple(holders))

    async def trace(self, seconds: float = 10.0, *, most: int = 10) -> Trace:
        """Find the lines that allocate memory and keep it. Costs while it runs; the result says what.

        Args:
            seconds: How long, 0.1..600.
            most: Lines in the result, 1..1000.

        Raises:
            OptionError: An argument lies outside its bounds.
            UsageError: A trace runs already.

        Cancelling stops the trace.
        """
        # Only who asks for it pays for loading it.
        from headrace.memory.tracing import trace_lines  # noqa: PLC0415 - as above

        return await trace_lines(
            check_seconds("seconds", seconds, low=0.1, high=600.0), check_whole("most", most, 1, 1_000)
        )

    def status(self) -> MemoryStatus:
        """Return everything that is known of the memory of this process; takes a fresh reading."""
        reading = self._read()
        settings, restraint = self._members.settings, self._restraint
        group = self._reader.group
        return MemoryStatus(
            enabled=settings.memory_enabled,
            step=self._step.word,
            share=reading.share,
            gauge=reading.gauge,
            used_bytes=reading.used_bytes,
            child_bytes=reading.child_bytes,
            proportional_bytes=read_proportional(),
            virtual_bytes=reading.virtual_bytes,
            peak_bytes=read_peak(),
            allocated_blocks=read_blocks(),
            limit=reading.limit,
            thresholds=self._thresholds,
            growth=self._recent,
            lasting_growth=self._series.lasting(),
            rapid=self._alerts.is_rapid,
            leak_suspected=self._alerts.is_leaking,
            tasks=tuple(self.leaks.tasks()),
            collector=self.collector.stats(),
            buffers=(*self._own_buffers(), *map(_show, self._actions.caches())),
            effects=tuple(self._actions.effects()),
            held=self._pacing.is_held,
            holders=tuple(self._holders),
            workers=tuple(WorkerMemory(one.concurrency, slots) for one, slots in restraint.workers.items()),
            group_events={} if group is None else group.events(),
            replacements_asked=restraint.replaced_total,
            predecessor=self._predecessor,
            readings=self._readings,
            reading_cost=self._cost / max(1, self._readings),
        )

    # Readings

    def calm(self) -> None:
        """Do what waited for a moment between two batches; called by workers when `wants_calm` is set."""
        if not self.wants_calm:
            return
        self.wants_calm = False
        if self._relief_since:
            self._relieve()
        elif self.collector.is_full_due(time.monotonic(), idle=self._restraint.is_idle):
            self.collector.collect()

    def tick(self) -> None:
        """Take a reading and act on it; the duty of the clock."""
        try:
            self._tick()
        except MemoryError:
            # The next reading finds some again, and acts.
            self._reader.reserve.release()
            self._members.sooner(SOONEST)

    def _tick(self) -> None:
        began = time.perf_counter()
        settings = self._members.settings
        self._members.renew()
        if not settings.memory_enabled:
            self._reader.reserve.release()
            return
        reading = self._read()
        self._series.add(reading.at, reading.used_bytes)
        self._recent = self._series.recent()
        self._follow(reading)
        self._alerts.growth(reading, self._series, self._recent, self.leaks)
        self._look_sooner(reading)
        often = self._step > Step.NORMAL or self._alerts.is_rapid or self._alerts.is_leaking
        for worker in list(self._restraint.workers):
            worker.arm(often=often)
        self._readings += 1
        self._cost += time.perf_counter() - began
        self._use_calm(reading.at)

    def _follow(self, reading: Reading) -> None:
        before = self._step
        budget = reading.limit.budget_bytes
        self._step = after = next_step(before, reading.share, self._thresholds)
        if after is Step.NORMAL and before is not after:
            self._pacing.recovered()
            if self._restraint.workers:
                self._reader.hold_back(reading.limit)
        elif after is Step.CRITICAL:
            # Why first: the stop that follows needs some when nothing else is left.
            self._reader.reserve.release()
        if not self._relief_since and self._pacing.is_due(reading.at, after, reading.used_bytes, budget):
            self._relief_since = reading.at
        # Why: what is still to be tried may make a replacement needless; it is tried within the next reading.
        waits = self._relief_since and after is Step.CRITICAL and self._restraint.replace is not None
        done = "" if waits else self._restraint.follow(reading, after, self._thresholds, self._recent)
        self._alerts.step(before, after, reading, self._recent, done)
        if done and after is before:
            logger.info(done, extra={"step": after.word, "used_mb": reading.used_bytes // MIB})
        if after is not before and max(after, before) >= Step.HIGH and self._tell is not None:
            self._tell(self._restraint.plea(reading, after))

    def _use_calm(self, now: float) -> None:
        restraint = self._restraint
        full = self.collector.is_full_due(now, idle=restraint.is_idle)
        if not self._relief_since and not full:
            return
        self.wants_calm = True
        if restraint.is_calm or (self._relief_since and now - self._relief_since > CALM_PATIENCE):
            self.calm()

    def _relieve(self) -> None:
        """Make one attempt to free memory, and remember what it was good for."""
        self._relief_since = 0.0
        before = self._read()
        effects = self._actions.run(self._step.word)
        gained = freed(effects)
        logger.info(
            "memory was freed",
            extra={
                "step": self._step.word,
                "freed_mb": round(gained / MIB, 1),
                "seconds": round(sum(effect.seconds for effect in effects), 4),
                "actions": "; ".join(f"{one.action}: {one.freed_bytes / MIB:.1f} MB" for one in effects),
            },
        )
        if self._pacing.note(before.at, before.used_bytes, gained):
            self._holders = find_holders()
            self._alerts.held(before, self._holders, self.leaks)

    def _look_sooner(self, reading: Reading) -> None:
        """Read again before the next due time when memory is short, or grows so that it soon may be."""
        interval = self._members.settings.memory_interval
        wait = min(interval, SOON) if self._step >= Step.HIGH or self._relief_since else interval
        rate = self._recent.value if self._recent.grows else 0.0
        if self._last is not None and reading.at > self._last.at:
            rate = max(rate, (reading.used_bytes - self._last.used_bytes) / (reading.at - self._last.at))
        self._last = reading
        if rate > 0.0:
            left = self._thresholds.critical * reading.limit.budget_bytes - reading.used_bytes
            wait = min(wait, max(0.0, left / rate) / 4)
        if wait < interval:
            self._members.sooner(max(SOONEST, wait))

    def _read(self) -> Reading:
        limit = self._reader.limit(self._members.settings.memory_limit_mb, self._processes)
        return self._reader.read(limit, self._restraint.job_processes())

    @property
    def _thresholds(self) -> Thresholds:
        return Thresholds.of(self._members.settings.memory_threshold)

    def _driven(self, driven: bool) -> None:  # noqa: FBT001 - whether any clock drives it
        if driven:
            self.collector.watch()
        else:
            self.collector.unwatch()

    def _own_buffers(self) -> list[Buffer]:
        series, leaks, actions = self._series, self.leaks, self._actions
        return [
            Buffer("readings of memory", series.size_bytes, series.limit_bytes, can_release=False),
            Buffer("samples of tasks", leaks.size_bytes, leaks.limit_bytes, can_release=False),
            Buffer("effects of actions", actions.size_bytes, actions.limit_bytes, can_release=False),
            Buffer("pauses of the collector", self.collector.size_bytes, self.collector.size_bytes, can_release=False),
        ]


def _show(cache: Cache) -> Buffer:
    return Buffer(cache.name, cache.size_bytes(), cache.limit_bytes, cache.can_release)
