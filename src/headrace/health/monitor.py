"""The probe of one app: it asks the server on the control lane, keeps the figures, and tells changes on the event bus.

One command at most is under way, and a caller waits for its answer for a bounded time only. What was asked is never
given up early, since that would drop the connection on which leases are renewed; a late answer still counts. Any other
call on the control lane says as much about latency as a probe does, so the probe is due only where there was none.
INFO is what the probe asks: it is answered also while a server loads, and tells in one round trip what PING hides:
read-only, out of memory, paused, at maxclients, failing over, and the server's clock. It never writes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import ConnectionLost, HeadraceError, PoolClosed
from headrace.health.causes import explain_exhausted, explain_slow, explain_wait
from headrace.health.checks import Seen, judge, run_checks
from headrace.health.condition import Condition
from headrace.health.facts import Facts, explain, read_states
from headrace.health.inquiry import Inquiry
from headrace.health.loop import LoopWatch
from headrace.health.probe import Busy, Offset, Split, grade, split_answer
from headrace.health.verdict import ORDER, Health, Latency, Status, worst
from headrace.histogram import RecentHistogram
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.census import Census
    from headrace.clock import Clock
    from headrace.health.verdict import Check, LoopLag, WorkerState
    from headrace.histogram import Histogram
    from headrace.pool.carrier import Carrier
    from headrace.settings import Settings

INFO: Final = pack_command("INFO")
PING: Final = pack_command("PING")
#: A server that has not answered for this long does not answer, seconds; a call of `health` takes about as long.
NO_ANSWER: Final = 0.8
#: So long one question may be under way before its connection is given up as half-open, seconds.
ASK_TIMEOUT: Final = 5.0
#: Time between two looks while something is amiss, seconds; doubled each time up to the interval.
LOOK_AGAIN: Final = 0.25
DOUBLINGS: Final = 16
#: The loop is looked at for this long at least, seconds.
LOOP_LOOK: Final = 0.02


class Monitor:
    """Know how the server and the loop are.

    Args:
        link: The control link of the app.
        clock: The clock of the process.
        census: Where the questions under way are entered.
        settings: Those of the app: the interval, and from where on an answer is slow and a loop blocked.
        publish: Called with the name of an event and its fields.
        pool_stats: Returns the figures of the pool, a dataclass.
    """

    def __init__(
        self,
        link: Carrier,
        clock: Clock,
        census: Census,
        settings: Settings,
        *,
        publish: Callable[..., None],
        pool_stats: Callable[[], Any],
    ) -> None:
        self._link = link
        self._clock = clock
        self._census = census
        self._interval = settings.health_interval
        self._threshold = settings.health_latency
        self._publish = publish
        self._pool_stats = pool_stats
        self._alarm = clock.alarm("probe redis", self._due, owner="health")
        self._condition = Condition(str(link.address), publish, clock.now)
        self._watch = LoopWatch(clock, settings.loop_lag_warn)
        self._inquiry = Inquiry(link, census)
        self._offset = Offset()
        self._recent = RecentHistogram()
        self._split: Split | None = None
        #: Where the time of the latest slow answers went: what most of it went to is the cause.
        self._slow: deque[Split] = deque(maxlen=8)
        self._facts: Facts | None = None
        self._facts_at = 0.0
        self._command = INFO
        #: Lanes of the pool that are exhausted, and since when; bounded by the lanes.
        self._exhausted: dict[str, float] = {}
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        #: The question under way has counted as one without an answer.
        self._unanswered = False
        self._patience = 0
        self._closed = False

    # Lifetime

    def start(self) -> None:
        """Begin to probe; called on the loop, with the clock started."""
        self._condition.changed_at = self._clock.now()
        told, failed = self._link.on_roundtrip, self._link.on_error

        def called(seconds: float) -> None:
            if told is not None:
                told(seconds)
            self._called(seconds)

        def erred(name: str) -> None:
            if failed is not None:
                failed(name)
            self.suspect()

        self._link.on_roundtrip, self._link.on_error = called, erred
        self._alarm.set(self._clock.now() + self._interval)

    async def close(self) -> None:
        """End the probe; what is under way is given up."""
        self._closed = True
        self._alarm.close()
        self._watch.close()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._inquiry.close()

    # What others tell

    def calibrate(self, sent: float, received: float, text: bytes | str) -> None:
        """Take an INFO that was asked for another reason: it tells where the server's clock stands (perf_counter)."""
        server = Facts(text).server_time
        if server is not None:
            self._offset.add(sent, received, server)

    def suspect(self) -> None:
        """Look soon: something failed, or came back."""
        if not self._closed and self._asking is None:
            self._alarm.set(self._clock.now())

    def pool_event(self, name: str, facts: dict[str, object]) -> None:
        """Tell on the bus that a lane of the pool is `exhausted` or has `recovered`, with how long that lasted."""
        lane, now = str(facts.get("lane", "")), self._clock.now()
        if name == "exhausted":
            self._exhausted.setdefault(lane, now)
        elif name == "recovered":
            facts = {"duration": now - self._exhausted.pop(lane, now), **facts}
        self._publish(f"pool.{name}", **facts)

    # Looking

    @property
    def redis(self) -> Status:
        """The server and the way to it, as of the last look."""
        return self._condition.status

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the server is not healthy, as of the last look."""
        return tuple(finding.reason for finding in self._condition.findings())

    async def look(self, within: float = NO_ANSWER) -> None:
        """Have the answer to a probe that begins now or is under way; returns after `within` seconds at the latest.

        Nothing is raised, whatever the server does. Time for which this process's own loop was blocked does not count.
        """
        asking = self._asking or self._ask()
        deadline = self._clock.now() + within
        extra = 0.0
        while not asking.done() and (left := deadline + extra - self._clock.now()) > 0:
            await asyncio.wait({asking}, timeout=left)
            # Why at most once the time: a loop that is blocked again and again must not keep the caller.
            extra = min(self._watch.read(), within)
        waited = self._clock.now() - self._asked_at - self._watch.blocked
        if not asking.done() and waited >= NO_ANSWER * 0.95 and not self._closed:
            self._unanswered = True
            self._watch.judge()
            self._take(explain_wait(self._link, waited, self._facts))
            self._plan()

    async def health(self, workers: Callable[[], Sequence[WorkerState]] = tuple) -> Health:
        """Look, and return the verdict; takes about a second at most and raises nothing.

        Args:
            workers: Returns the workers of this process.
        """
        deadline = self._clock.now() + NO_ANSWER
        await self.look()
        # Why again: one bad sign that is not sure changes nothing yet, and the caller wants to know now.
        while self._is_worsening() and (left := deadline - self._clock.now()) > 0:
            await self.look(left)
        if self.redis is not Status.UNHEALTHY and not self._closed:
            now = self._clock.now()
            await self._inquiry.ask(now, max(0.0, deadline - now))
        return self._build(workers())

    def _is_worsening(self) -> bool:
        return self._condition.machine.worsening or self._watch.machine.worsening

    @property
    def _is_quiet(self) -> bool:
        return self._condition.machine.is_quiet and self._watch.machine.is_quiet

    async def _due(self) -> None:
        # Why only here: who looks out of curiosity shall not make the clock look less often.
        self._patience = min(self._patience + 1, DOUBLINGS)
        await self.look()

    def retune(self, settings: Settings) -> None:
        """Take other settings, from now on."""
        self._interval, self._threshold = settings.health_interval, settings.health_latency
        self._watch.retune(settings.loop_lag_warn)
        if self._asking is None:
            self._plan()

    def _plan(self) -> None:
        """Set the next look: soon while something is amiss or undecided, else an interval later."""
        if self._condition.machine.undecided or self._watch.machine.undecided:
            self._patience = 0
        wait = self._interval
        if not self._is_quiet:
            wait = min(self._interval, LOOK_AGAIN * 2**self._patience)
        self._alarm.set(self._clock.now() + wait)

    def _ask(self) -> asyncio.Task[None]:
        self._asked_at = self._clock.now()
        self._unanswered = False
        self._watch.start()
        self._asking = self._census.create_task(self._probe(), name="probe redis", owner="health")
        return self._asking

    async def _probe(self) -> None:
        """Ask once, take the answer, and look at the loop for a moment."""
        try:
            error = await self._exchange()
            if error is not None and not self._closed:
                self._take(explain(self._link.last_failure or str(error), self._facts))
            await asyncio.sleep(LOOP_LOOK - self._clock.now() + self._asked_at)
        finally:
            self._watch.stop()
            self._asking = None
        self._watch.judge()
        self._plan()

    async def _exchange(self) -> HeadraceError | None:
        """Send the question and take its answer; returns what came instead."""
        failed: HeadraceError | None = None
        # Why twice: a connection that broke says nothing of the server, one that cannot be opened anew does.
        for _ in range(2):
            opened = self._link.opened_total if self._link.is_open else -1
            sent, blocked = time.perf_counter(), self._watch.read()
            try:
                (reply,) = await self._link.roundtrip(self._command, 1, timeout=ASK_TIMEOUT)
            except PoolClosed:
                return None
            except ConnectionLost as error:
                failed = error
                if time.perf_counter() - sent > NO_ANSWER:
                    break
            except HeadraceError as error:
                return error
            else:
                received, blocked = time.perf_counter(), self._watch.read() - blocked
                self._answer(reply, sent, received, blocked, timed=opened == self._link.opened_total)
                return None
        return failed

    # Answers

    def _called(self, seconds: float) -> None:
        """Take the time of any call on the control lane."""
        now = self._clock.now()
        self._recent.turn(now)
        self._recent.current.record(seconds)
        if self._asking is not None:
            return
        if seconds > self._threshold:
            # Why: the call may be a long script of ours; only a probe can tell what the time went to.
            self.suspect()
        elif self._is_quiet and now - self._facts_at < self._interval:
            # Why the age: INFO is asked for each interval also where other calls tell the latency.
            self._alarm.set(now + self._interval)

    def _answer(self, reply: Any, sent: float, received: float, blocked: float, *, timed: bool) -> None:
        """Take an answer: when it was asked for and came (perf_counter), how long the loop was blocked meanwhile."""
        if isinstance(reply, Exception) and not (str(reply).startswith("NOPERM") and self._command == INFO):
            self._take(explain(str(reply)))
            return
        before, facts = self._facts, None
        if isinstance(reply, Exception):
            # Why: what this user may not see is unknown; how fast the server answers can be told all the same.
            self._command, self._facts = PING, None
        elif self._command == INFO:
            facts = self._facts = Facts(reply)
        if timed:
            self._split = self._part(facts, before, sent, received, blocked)
        self._facts_at = self._clock.now()
        if states := [] if facts is None else read_states(facts, before):
            self._take(*states)
            return
        sign = grade(self._split.latency, self._threshold) if timed and self._split is not None else Status.HEALTHY
        if self._unanswered:
            # Why: that it came late has been told already, and that it came is no proof yet.
            sign = None
        if sign is Status.DEGRADED and self._split is not None:
            self._slow.append(self._split)
            self._take(explain_slow(self._slow, self._threshold, told_apart=facts is not None))
        else:
            self._take(sign=sign)

    def _part(self, facts: Facts | None, before: Facts | None, sent: float, received: float, blocked: float) -> Split:
        """Say where the time of an answer went."""
        ahead, busy = None, None
        if facts is not None:
            ahead = self._place(facts, sent, received)
            worked, earlier = facts.worked, None if before is None else before.worked
            if worked is not None and earlier is not None:
                busy = Busy(worked - earlier, self._clock.now() - self._facts_at)
        return split_answer(received - sent, blocked, ahead, busy)

    def _place(self, facts: Facts, sent: float, received: float) -> float | None:
        """Return how long after the sending the server answered, by its clock; None when that cannot be told."""
        server, middle, width = facts.server_time, self._offset.middle, self._offset.width
        if server is None:
            return None
        self._offset.add(sent, received, server)
        if middle is None or width > (received - sent) / 2:
            return None
        return server - middle - sent

    def _take(self, *findings: Any, sign: Status | None = None) -> None:
        if self._condition.take(*findings, sign=sign):
            self._patience = 0
        if self._condition.machine.is_quiet:
            self._slow.clear()

    # Verdict

    def latencies(self) -> Histogram:
        """Return the times of all calls on the control lane."""
        return self._recent.ever()

    @property
    def loop_lag(self) -> LoopLag:
        """How late the loop was at the latest looks."""
        return self._watch.figures()

    def _checks(self) -> tuple[Check, ...]:
        if self._facts is None and self._command == INFO:
            return ()
        middle, inquiry = self._offset.middle, self._inquiry
        skew = None if middle is None else middle - time.time() + time.perf_counter()
        facts = self._facts or Facts({})
        return run_checks(Seen(facts, inquiry.save, inquiry.fsync, inquiry.slow, skew, self._offset.width / 2))

    def _build(self, workers: Sequence[WorkerState]) -> Health:
        now, split, checks = self._clock.now(), self._split, self._checks()
        findings = [
            *self._condition.findings(),
            *self._watch.findings(),
            *(explain_exhausted(lane, now - since) for lane, since in self._exhausted.items()),
            *judge(checks),
        ]
        findings.sort(key=lambda finding: -ORDER.index(finding.status))
        latency = Latency(self._threshold, recent=self._recent.quantiles(now))
        if split is not None:
            latency = dataclasses.replace(latency, last=split.latency, server=split.server, network=split.network)
        return Health(
            status=worst([self.redis, self._watch.machine.status, *(finding.status for finding in findings)]),
            reasons=tuple(finding.reason for finding in findings),
            remedies=tuple(finding.remedy for finding in findings),
            server=str(self._link.address),
            redis=self.redis,
            since=now - self._condition.changed_at,
            latency=latency,
            loop=self._watch.machine.status,
            loop_lag=self.loop_lag,
            checks=checks,
            checks_age=self._inquiry.age(now),
            pool=dataclasses.asdict(self._pool_stats()),
            workers=tuple(self._with_server(worker) for worker in workers),
            at=time.time(),
        )

    def _with_server(self, worker: WorkerState) -> WorkerState:
        """Say that a worker is not consuming while the server serves nobody."""
        if self.redis is not Status.UNHEALTHY:
            return worker
        return dataclasses.replace(worker, ready=False, reasons=(*worker.reasons, *self.reasons))
