"""The one periodic clock of a process: its duties, its alarms, and a single timer of the event loop under all of them.

Lease renewal, telemetry, health and memory are duties of one clock instead of timers of their own, and a deadline that
moves is an alarm. The clock wakes for the nearest of them only, lets what is due at nearly the same time run together,
and has no timer at all while nothing has a due time. It decides when, never what: the callbacks belong to their owners.

A clock is meant for tens of duties and alarms, not for one a job: each firing looks at all of them once. It belongs to
one event loop, and only the thread of that loop may use it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from typing import TYPE_CHECKING, Final

from headrace.census import Kind
from headrace.duty import NOTHING, RESOLUTION, Alarm, Callback, Duty, DutyStats, Runner, Totals
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from headrace.census import Census, Entry

__all__ = ["Alarm", "Callback", "Clock", "Duty", "DutyStats"]

logger = logging.getLogger(__name__)

TIMER_MINIMUM: Final = 0.001
TIMER_MAXIMUM: Final = 86_400.0
#: Names of duties and alarms that are remembered when these have closed.
CLOSED_NAMES: Final = 64


class Clock:
    """The one clock of a process, or of an app.

    A duty is due at the multiples of its interval counted from the start of the clock, so duties with equal or multiple
    intervals wake the process together. A duty may also run up to 5 % of its interval early, at most 0.05 s, when the
    clock is awake anyway. Alarms never run more than a microsecond early.

    An urgent duty, as the renewal of leases is, goes before all others: those that are due with it start one turn of
    the loop later, when its coroutine has run up to its first wait. It goes first also when it is not due yet, and its
    last run began half an interval ago. So whatever blocks the loop in a duty does so with an urgent one just done.

    Invariant: the loop holds at most one timer of this clock, and none when no duty and no alarm has a due time.
    """

    def __init__(self, census: Census, name: str = "clock") -> None:
        """Make a clock that stands still until `start`.

        Args:
            census: Where the timer and the async runs are entered.
            name: Name of the clock in the census.
        """
        self._census = census
        self.name = name
        self.origin = 0.0
        # Bounded by what the owners add, a few for each part; each leaves with its `close`.
        self._runners: dict[Runner, None] = {}
        # What those did that have closed, by name; bounded by CLOSED_NAMES.
        self._closed_totals: dict[str, Totals] = {}
        # The async runs under way, at most one for each duty and alarm; those of closed ones too, until they end.
        self._runs: dict[asyncio.Task[None], Runner] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: contextvars.Context | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf
        self._entry: Entry | None = None
        self._firing = False
        self._closed = False

    def every(self, name: str, interval: float, callback: Callback, *, owner: str, urgent: bool = False) -> Duty:
        """Run a callback once every interval.

        It is first due within one interval, and exactly one interval after `start` if it is added before. An async
        callback whose last run is still under way is not started again; the due time counts as skipped. An error is
        logged, and the duty goes on.

        Args:
            name: What the duty does.
            interval: Seconds from one due time to the next, 0.001 <= interval <= 31536000.
            callback: A function or coroutine function without arguments.
            owner: The part that it belongs to.
            urgent: Go before all other duties and alarms, sometimes more often than once an interval.

        Raises:
            OptionError: An argument is malformed or outside its bounds.
            UsageError: The clock is closed.
        """
        self._check_open(name)
        duty = Duty(self, name, owner, interval, callback, urgent=urgent)
        self._runners[duty] = None
        if self._loop is not None:
            duty.place(self.origin, self._loop.time())
            self.moved(None, duty.due)
        return duty

    def alarm(self, name: str, callback: Callback, *, owner: str) -> Alarm:
        """Make an alarm, which runs its callback when the deadline given to `Alarm.set` comes.

        Args:
            name: What the alarm does.
            callback: A function or coroutine function without arguments.
            owner: The part that it belongs to.

        Raises:
            OptionError: An argument is malformed.
            UsageError: The clock is closed.
        """
        self._check_open(name)
        alarm = Alarm(self, name, owner, callback)
        self._runners[alarm] = None
        return alarm

    def start(self) -> None:
        """Let time begin; called on the loop that the clock belongs to.

        Raises:
            UsageError: The clock is closed or already started, or no event loop runs in this thread.
        """
        self._check_open("start")
        if self._loop is not None:
            raise UsageError(f"clock {self.name!r} is already started. Start each clock once.")
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise UsageError(
                f"clock {self.name!r} cannot start: no event loop runs in this thread. Start it from a coroutine."
            ) from error
        # Why: whoever sets an alarm may be inside a job; its context variables must not reach the callbacks.
        self._context = contextvars.copy_context()
        self.origin = self._loop.time()
        for runner in self._runners:
            if isinstance(runner, Duty):
                runner.place(self.origin, self.origin)
        self._arm()

    async def close(self, grace: float = 5.0) -> None:
        """Stop for good: no callback starts any more, and the async runs under way end.

        Args:
            grace: Seconds that the async runs get to end by themselves, 0 <= grace; then they are cancelled, and get as
                long again to obey. One that does not is named in the log.

        Cancelling the wait cancels the runs.
        """
        self._closed = True
        for runner in list(self._runners):
            runner.close()
        self._disarm()
        current = asyncio.current_task()
        pending = {task for task in self._runs if task is not current}
        try:
            if pending:
                _, pending = await asyncio.wait(pending, timeout=grace)
        finally:
            for task in pending:
                task.cancel()
        if pending:
            _, pending = await asyncio.wait(pending, timeout=grace)
        for task in pending:
            logger.error(
                "clock duty ignores its cancellation; it must let CancelledError pass",
                extra={"duty": task.get_name(), "grace": grace},
            )

    @property
    def is_running(self) -> bool:
        """Whether callbacks run when they are due: it was started, and is not closed."""
        return self._loop is not None and not self._closed

    def stats(self) -> list[DutyStats]:
        """List the figures of every duty and alarm, in the order they were made."""
        return [runner.stats() for runner in self._runners]

    def totals(self) -> dict[str, Totals]:
        """Return what all duties and alarms of each name did, those that have closed included."""
        totals = dict(self._closed_totals)
        for runner in self._runners:
            totals[runner.name] = totals.get(runner.name, NOTHING).plus(runner)
        return totals

    def now(self) -> float:
        """Tell the time of the loop in seconds, or 0 before `start`."""
        return 0.0 if self._loop is None else self._loop.time()

    def moved(self, before: float | None, after: float | None) -> None:
        """Follow a due time that changed; called by duties and alarms, and the hot path of `Alarm.set`."""
        if after is not None:
            if after < self._timer_due and not self._firing and self._loop is not None:
                self._arm_at(after)
        elif before is not None and not self._firing and all(runner.due is None for runner in self._runners):
            self._disarm()

    def remove(self, runner: Runner) -> None:
        """Forget a duty or alarm that closed; called by its `close`."""
        due, runner.due = runner.due, None
        if runner in self._runners:
            del self._runners[runner]
            if runner.name in self._closed_totals or len(self._closed_totals) < CLOSED_NAMES:
                before = self._closed_totals.get(runner.name, NOTHING)
                self._closed_totals[runner.name] = before.plus(runner)
        self.moved(due, None)

    def spawn(self, runner: Runner, coro: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Start an async run of a duty or alarm as a task; called by it when it is due."""
        task = self._census.create_task(coro, name=f"{self.name}: {runner.name}", owner=runner.owner)
        if not task.done():
            self._runs[task] = runner
            task.add_done_callback(self._runs.__delitem__)
        return task

    def _check_open(self, name: str) -> None:
        if self._closed:
            raise UsageError(
                f"clock {self.name!r} is closed, so {name!r:.80} cannot be added. Add it before the close."
            )

    def _arm(self) -> None:
        """Set the timer to the nearest due time, or to none."""
        nearest = min((runner.due for runner in self._runners if runner.due is not None), default=None)
        if nearest is None:
            self._disarm()
        else:
            self._arm_at(nearest)

    def _arm_at(self, due: float) -> None:
        if self._loop is None or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        wait = due - self._loop.time()
        if wait > 0.0:
            # Why: a loop may round a wait down to whole milliseconds and fire early; without a least wait it would then
            # spin until the due time. The longest wait keeps within what every loop can hold; firing early is harmless.
            wait = min(max(wait, TIMER_MINIMUM), TIMER_MAXIMUM)
        self._timer = self._loop.call_later(max(wait, 0.0), self._fire, context=self._context)
        self._timer_due = due
        if self._entry is None:
            self._entry = self._census.add(Kind.TIMER, self.name, "clock", self)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due = math.inf
        if self._entry is not None:
            self._entry.close()
            self._entry = None

    def _fire(self) -> None:
        """Run everything that is due, then set the timer to what comes next."""
        if self._loop is None or self._closed:
            return
        self._timer = None
        now = self._loop.time()
        self._firing = True
        try:
            for runner in self._plan(now):
                if not runner.urgent and self._first(self._loop.time()):
                    # Why: what the callbacks before this one took has made it due; the others come right after it.
                    break
                # A callback before this one may have moved or closed it.
                if runner.is_due(now + RESOLUTION + runner.slack) or runner.urgent:
                    runner.fire(now)
        finally:
            self._firing = False
            if not self._closed:
                self._arm()

    def _plan(self, now: float) -> list[Runner]:
        # Why: a duty runs early only along with another that is due; a timer that fired early by rounding runs none.
        if not any(runner.is_due(now + RESOLUTION) for runner in self._runners):
            return []
        if first := self._first(now):
            return first
        return [runner for runner in self._runners if runner.is_due(now + RESOLUTION + runner.slack)]

    def _first(self, now: float) -> list[Runner]:
        return [runner for runner in self._runners if runner.goes_first(now + RESOLUTION)]
