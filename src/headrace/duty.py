"""Duties and alarms: what a clock runs, when each is due next, and what its runs cost.

A duty is due at the multiples of its interval, an alarm once at a deadline that may be moved. Both decide here what a
due time that has come means, run their callback, and keep their figures. The clock that wakes them is `headrace.clock`.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from headrace.errors import OptionError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

logger = logging.getLogger(__name__)

Callback: TypeAlias = "Callable[[], object]"
"""What runs when it is time: a plain function, or a coroutine function, which then runs as a task."""

INTERVAL_MINIMUM: Final = 0.001
INTERVAL_MAXIMUM: Final = 31_536_000.0
SLACK_SHARE: Final = 0.05
SLACK_MAXIMUM: Final = 0.05
REPORT_INTERVAL: Final = 60.0
BLOCKING: Final = 0.25
"""A callback that keeps the loop from everything else for so long is named in the log, in seconds."""
RESOLUTION: Final = 0.000_001
"""Times that differ by less are the same, in seconds: products of an interval and clocks carry rounding errors."""


class Timekeeper(Protocol):
    """What duties and alarms need of their clock."""

    @property
    def origin(self) -> float:
        """Time of the loop when the clock started."""

    def now(self) -> float:
        """Tell the time of the loop."""

    def moved(self, before: float | None, after: float | None) -> None:
        """Follow a due time that changed."""

    def remove(self, runner: Runner) -> None:
        """Forget a duty or alarm that closed."""

    def spawn(self, runner: Runner, coro: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start an async run."""


@dataclass(frozen=True, slots=True)
class DutyStats:
    """What the clock knows of one duty or alarm, in a fixed number of figures.

    Attributes:
        name: Name of the duty.
        owner: The part that it belongs to.
        interval: Seconds from one due time to the next; 0 for an alarm.
        runs: Runs that were started.
        skipped: Due times that passed without a run, because the last run was still under way or the loop was blocked.
        failures: Runs that raised.
        running: Whether an async run is under way.
        late_last: Seconds from the due time to the start of the last run.
        late_maximum: The largest of these.
        cost_last: Seconds that the last finished run took; for an async run from start to end, waits included.
        cost_maximum: The largest of these.
        cost_total: Their sum.
        due_in: Seconds until the next due time, negative when overdue, None when there is none.
        urgent: Whether it goes before all others that are due.
    """

    name: str
    owner: str
    interval: float
    runs: int
    skipped: int
    failures: int
    running: bool
    late_last: float
    late_maximum: float
    cost_last: float
    cost_maximum: float
    cost_total: float
    due_in: float | None
    urgent: bool = False


class Totals(NamedTuple):
    """What all duties and alarms of one name did; see `DutyStats`."""

    runs: int = 0
    skipped: int = 0
    failures: int = 0
    cost: float = 0.0

    def plus(self, runner: Runner) -> Totals:
        """Return these and those of one more."""
        return Totals(
            self.runs + runner.runs,
            self.skipped + runner.skipped,
            self.failures + runner.failures,
            self.cost + runner.cost_total,
        )


NOTHING: Final = Totals()


class Runner:
    """Run one callback, sync or async, and keep its figures; a duty or an alarm is one."""

    __slots__ = (
        "_callback",
        "_clock",
        "_reported",
        "_slow_reported",
        "closed",
        "cost_last",
        "cost_maximum",
        "cost_total",
        "due",
        "failures",
        "late_last",
        "late_maximum",
        "name",
        "owner",
        "runs",
        "skipped",
        "task",
    )

    interval: float = 0.0
    slack: float = 0.0
    urgent: bool = False

    def __init__(self, clock: Timekeeper, name: str, owner: str, callback: Callback) -> None:
        if not name or not owner or not callable(callback):
            raise OptionError(
                f"clock: {name!r:.80} of {owner!r:.80} with callback {callback!r:.80}: expected a name, an owner and a "
                "function without arguments. Say what runs and which part it belongs to."
            )
        self._clock = clock
        self._callback = callback
        self._reported = self._slow_reported = -math.inf
        self.name = name
        self.owner = owner
        self.due: float | None = None
        self.closed = False
        self.task: asyncio.Task[None] | None = None
        self.runs = self.skipped = self.failures = 0
        self.late_last = self.late_maximum = 0.0
        self.cost_last = self.cost_maximum = self.cost_total = 0.0

    def __repr__(self) -> str:
        """Show what runs and whose it is."""
        return f"{type(self).__name__}({self.name!r} of {self.owner!r})"

    def close(self) -> None:
        """Never run again; a second call does nothing. An async run that is under way goes on to its end."""
        if not self.closed:
            self.closed = True
            self._clock.remove(self)

    def is_due(self, now: float) -> bool:
        """Tell whether a due time has come."""
        return self.due is not None and self.due <= now

    def goes_first(self, now: float) -> bool:  # noqa: ARG002 - an urgent duty looks at it
        """Tell whether it is to be run before others are."""
        return False

    def stats(self) -> DutyStats:
        """Give the figures of this duty or alarm."""
        return DutyStats(
            name=self.name,
            owner=self.owner,
            interval=self.interval,
            runs=self.runs,
            skipped=self.skipped,
            failures=self.failures,
            running=self.task is not None,
            late_last=self.late_last,
            late_maximum=self.late_maximum,
            cost_last=self.cost_last,
            cost_maximum=self.cost_maximum,
            cost_total=self.cost_total,
            due_in=None if self.due is None else self.due - self._clock.now(),
            urgent=self.urgent,
        )

    def fire(self, now: float) -> None:
        """Handle a due time that has come; decides whether to run, and sets the next due time before it does."""
        raise NotImplementedError

    def ended(self) -> None:
        """Act on the end of an async run."""

    def run(self, late: float) -> None:
        """Call the callback; a coroutine that it returns runs on as a task."""
        self.runs += 1
        self.late_last = late
        self.late_maximum = max(self.late_maximum, late)
        began = time.perf_counter()
        try:
            result = self._callback()
        except Exception as error:  # noqa: BLE001  # The edge of a duty: one that fails must not stop the others.
            self._failed(error)
        else:
            if inspect.iscoroutine(result):
                task = self._clock.spawn(self, self._follow(result, began))
                # Why: a loop with an eager task factory may have ended the run by now.
                self.task = None if task.done() else task
                return
        self._spent(began)
        if self.cost_last >= BLOCKING:
            self._slow("clock duty blocked the event loop; it must wait in a coroutine, or work in a thread")

    async def _follow(self, coro: Coroutine[object, object, object], began: float) -> None:
        try:
            await coro
        except Exception as error:  # noqa: BLE001  # The edge of a duty, as in `run`.
            self._failed(error)
        finally:
            self._spent(began)
            self.task = None
            if not self.closed:
                self.ended()

    def _spent(self, began: float) -> None:
        self.cost_last = time.perf_counter() - began
        self.cost_maximum = max(self.cost_maximum, self.cost_last)
        self.cost_total += self.cost_last

    def _slow(self, what: str, **facts: object) -> None:
        """Name a duty that takes too long, at most once a minute."""
        now = time.monotonic()
        if now - self._slow_reported >= REPORT_INTERVAL:
            self._slow_reported = now
            took_ms = round(self.cost_last * 1000)
            logger.warning(what, extra={"duty": self.name, "owner": self.owner, "took_ms": took_ms, **facts})

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        now = time.monotonic()
        if now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            logger.error(
                "clock duty failed; it stays on and is reported at most once a minute",
                exc_info=error,
                extra={"duty": self.name, "owner": self.owner, "failures": self.failures},
            )


class Duty(Runner):
    """Something that runs once every interval; made by `Clock.every`, ended by `close`."""

    __slots__ = ("_again", "_began", "_overruns", "_step", "interval", "slack", "urgent")

    def __init__(
        self, clock: Timekeeper, name: str, owner: str, interval: float, callback: Callback, *, urgent: bool = False
    ) -> None:
        super().__init__(clock, name, owner, callback)
        if not _within(interval):
            raise OptionError(
                f"duty {name!r:.80} of {owner!r:.80}: interval {interval!r:.40}: expected a number of seconds from "
                f"{INTERVAL_MINIMUM} to {INTERVAL_MAXIMUM:.0f}. Pass such a number."
            )
        self.interval = float(interval)
        self.urgent = urgent
        self.slack = min(interval * SLACK_SHARE, SLACK_MAXIMUM)
        # Due times are origin + step * interval: a product, so that no error adds up.
        self._step = 0
        self._began = -math.inf
        self._overruns = 0
        self._again = False

    def goes_first(self, now: float) -> bool:
        """Tell whether an urgent duty is to be run before others are, for they may take long.

        It is when it is due, and also when its last run began half an interval ago: that run is an additional one.
        """
        if not self.urgent or self.due is None or self.task is not None:
            return False
        return self.due <= now or now - self._began >= self.interval / 2

    def place(self, origin: float, now: float) -> None:
        """Set the next due time to the first multiple of the interval after `now`, counted from `origin`."""
        self._step = max(self._step, math.floor((now - origin) / self.interval)) + 1
        self.due = origin + self._step * self.interval

    def fire(self, now: float) -> None:
        """Run once for all due times that have passed, unless the last run is still under way."""
        due, step = self.due, self._step
        if due is None:
            return
        if self.urgent and due > now + self.slack + RESOLUTION:
            self._begin(now, 0.0)
            return
        # Why: a run within the slack before a due time stands for that time, also one that is late for the time before.
        self.place(self._clock.origin, now + self.slack + RESOLUTION)
        passed = self._step - step
        if self.task is not None:
            self.skipped += passed
            self._again = self.urgent
            self._overruns += 1
            # Why not the first time: the loop may have been blocked, so that the run could not end.
            if self._overruns > 1:
                self._slow("clock duty still runs at its next due times, which are skipped", skipped=self.skipped)
            return
        self.skipped += passed - 1
        self._begin(now, max(0.0, now - due))

    def ended(self) -> None:
        """Make up for a due time of an urgent duty that came during the run."""
        if self._again:
            self._begin(self._clock.now(), 0.0)

    def _begin(self, now: float, late: float) -> None:
        self._again = False
        self._overruns = 0
        self._began = now
        self.run(late)


class Alarm(Runner):
    """A deadline that may be moved at any time and runs once when it comes; made by `Clock.alarm`, ended by `close`."""

    __slots__ = ("_again",)

    def __init__(self, clock: Timekeeper, name: str, owner: str, callback: Callback) -> None:
        super().__init__(clock, name, owner, callback)
        self._again = False

    @property
    def when(self) -> float | None:
        """The deadline in time of the loop, or None when there is none."""
        return self.due

    def set(self, when: float | None) -> None:
        """Move the deadline.

        Moving it later touches no timer and costs less than a microsecond; the timer that is set finds out when it
        fires. Taking away the last deadline of a clock and giving it a new one costs a timer, some microseconds. After
        `close` of the alarm or its clock, a call has no effect, so that late callers do no harm.

        Args:
            when: Deadline in `loop.time()` seconds, in the past for at once, or None for none.

        Raises:
            OptionError: `when` is not finite.
        """
        if when is not None and not math.isfinite(when):
            raise OptionError(
                f"alarm {self.name!r} of {self.owner!r}: set({when!r}): expected a finite time of the loop or None. "
                "Pass loop.time() + seconds, or None for no deadline."
            )
        if self.closed:
            return
        due = self.due
        self.due = when
        self._clock.moved(due, when)

    def fire(self, now: float) -> None:
        """Run once; while an async run is under way, run again right after it instead."""
        due = self.due
        if due is None:
            return
        self.due = None
        if self.task is not None:
            self._again = True
            return
        self.run(max(0.0, now - due))

    def ended(self) -> None:
        """Make up for a deadline that came during the run."""
        if self._again:
            self._again = False
            if self.due is None:
                self.set(self._clock.now())


def _within(interval: object) -> bool:
    # Why: True is an int, and a comparison with NaN is false.
    if isinstance(interval, bool) or not isinstance(interval, int | float):
        return False
    return INTERVAL_MINIMUM <= interval <= INTERVAL_MAXIMUM
