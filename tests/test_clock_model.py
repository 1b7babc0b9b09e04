"""The clock against a plain model: any sequence of sleeping, blocking, setting and closing, with duties beside it.

Steps happen 5 ms past a multiple of 10 ms; deadlines and intervals are multiples of 10 ms, so that no two coincide.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
from typing import Literal, TypeAlias

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.census import Census, Kind
from headrace.clock import TIMER_MINIMUM, Alarm, Clock
from headrace.duty import RESOLUTION
from tests.number_loop import NumberLoop, clock_timers, run

EPSILON = RESOLUTION * 2
ALARM_COUNT = 3

Step: TypeAlias = tuple[Literal["sleep", "block", "set", "unset", "close"], int, int]
alarm_numbers = st.integers(0, ALARM_COUNT - 1)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("sleep"), st.just(0), st.integers(1, 60)),
        st.tuples(st.just("block"), st.just(0), st.integers(1, 30)),
        st.tuples(st.just("set"), alarm_numbers, st.integers(-5, 80)),
        st.tuples(st.just("unset"), alarm_numbers, st.just(0)),
        st.tuples(st.just("close"), alarm_numbers, st.just(0)),
    ),
    max_size=25,
)
# Interval in units of 10 ms, and whether a run takes a while.
duties = st.lists(st.tuples(st.integers(1, 120), st.booleans()), max_size=3)


@given(steps, duties)
@example([("set", 0, 10), ("set", 0, 50), ("sleep", 0, 20), ("set", 0, 5), ("sleep", 0, 20)], [(100, False)])
@example([("set", 1, -5), ("block", 0, 30), ("set", 1, 3), ("block", 0, 1), ("close", 1, 0)], [(3, True), (7, False)])
@example([("sleep", 0, 50)], [(1, True), (1, False)])
@example([("block", 0, 29)], [(10, False)])
@example([("sleep", 0, 1), ("sleep", 0, 1), ("sleep", 0, 1), ("block", 0, 26)], [(15, False)])
def test_alarms_and_duties_run_as_in_a_plain_model(plan: list[Step], made: list[tuple[int, bool]]) -> None:
    async def main(loop: NumberLoop, clock: Clock, census: Census) -> None:
        await asyncio.sleep(0.005)
        model = AlarmModel(clock, loop)
        checks = [CheckedDuty(clock, loop, interval / 100, slow=slow) for interval, slow in made]

        for step in plan:
            await model.take(step)
            armed = bool(model.deadlines) or bool(checks)
            assert census.counts().get(Kind.TIMER, 0) == armed
            assert len(clock_timers(loop)) == armed
        await model.take(("sleep", 0, 200))

        blocked = any(kind == "block" for kind, _, _ in plan)
        model.verify(blocked=blocked)
        for check in checks:
            check.verify(blocked=blocked)

    run(main)


class AlarmModel:
    """Alarms and what they did, beside a table of deadlines and what it says they should have done."""

    def __init__(self, clock: Clock, loop: NumberLoop) -> None:
        self.loop = loop
        self.rings: list[tuple[int, float]] = []
        self.expected: list[tuple[int, float]] = []
        self.deadlines: dict[int, float] = {}
        self.closed: set[int] = set()
        self.alarms = [self._alarm(clock, number) for number in range(ALARM_COUNT)]

    def _alarm(self, clock: Clock, number: int) -> Alarm:
        return clock.alarm(f"alarm {number}", lambda: self.rings.append((number, self.loop.time())), owner="test")

    async def take(self, step: Step) -> None:
        kind, number, ticks = step
        if kind == "sleep":
            await asyncio.sleep(ticks / 100)
            self._pass()
        elif kind == "block":
            self.loop.block(ticks / 100)
            # The timer is overdue now; a turn of the loop lets it fire, and 10 ms in all keep the step off the grid.
            await asyncio.sleep(0.01)
            self._pass()
        elif kind == "set":
            when = round(self.loop.time() * 100 - 0.5) / 100 + ticks / 100
            self.alarms[number].set(when)
            if number not in self.closed:
                self.deadlines[number] = max(when, self.loop.time())
        elif kind == "unset":
            self.alarms[number].set(None)
            self.deadlines.pop(number, None)
        else:
            self.alarms[number].close()
            self.closed.add(number)
            self.deadlines.pop(number, None)

    def _pass(self) -> None:
        passed = [(number, when) for number, when in self.deadlines.items() if when <= self.loop.time()]
        self.expected += passed
        for number, _ in passed:
            del self.deadlines[number]

    def verify(self, *, blocked: bool) -> None:
        assert not self.deadlines
        for number in range(ALARM_COUNT):
            rings = [at for ringing, at in self.rings if ringing == number]
            model = [when for expected, when in self.expected if expected == number]
            assert len(rings) == len(model)
            late = [at - when for at, when in zip(rings, model, strict=True)]
            assert all(seconds >= -EPSILON for seconds in late)
            assert blocked or all(seconds <= TIMER_MINIMUM + EPSILON for seconds in late)


class CheckedDuty:
    """A duty that notes its runs, and the rules that they must have kept."""

    def __init__(self, clock: Clock, loop: NumberLoop, interval: float, *, slow: bool) -> None:
        self.clock, self.loop, self.interval, self.slow = clock, loop, interval, slow
        self.starts: list[float] = []
        self.before = self._due_count(loop.time())
        self.busy = 0
        self.duty = clock.every("checked", interval, self._crawl if slow else self._note, owner="test")

    def _note(self) -> None:
        self.starts.append(self.loop.time())

    async def _crawl(self) -> None:
        self._note()
        assert not self.busy
        self.busy = 1
        await asyncio.sleep(0.133)
        self.busy = 0

    def verify(self, *, blocked: bool) -> None:
        slack = self.duty.slack + EPSILON
        stats = self.duty.stats()
        # Every due time was run or counted as skipped, none twice.
        now = self.loop.time()
        assert self._due_count(now) <= self.before + stats.runs + stats.skipped <= self._due_count(now + slack)
        assert (stats.runs, stats.failures) == (len(self.starts), 0)
        due_times = [self._due_count(start + slack) for start in self.starts]
        assert due_times == sorted(set(due_times))
        if not blocked:
            late = [
                start - due * self.interval - self.clock.origin
                for start, due in zip(self.starts, due_times, strict=True)
            ]
            assert all(-slack <= seconds <= TIMER_MINIMUM + EPSILON for seconds in late)
            assert self.slow or stats.skipped == 0

    def _due_count(self, now: float) -> int:
        """Count the due times from the start of the clock up to a time."""
        return math.floor((now - self.clock.origin) / self.interval + EPSILON)


#: Interval of the urgent duty; then interval and blocking time of each other duty, in units of 10 ms.
others = st.lists(st.tuples(st.integers(1, 120), st.integers(0, 60)), min_size=1, max_size=4)


@given(st.integers(2, 100), others)
@example(33, [(67, 60)])
@example(100, [(1, 0), (120, 60)])
@example(20, [(27, 0)])
def test_whatever_blocks_the_loop_does_so_with_an_urgent_duty_just_begun(
    urgent: int, made: list[tuple[int, int]]
) -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        begun: list[float] = []
        ages: list[float] = []

        async def renew() -> None:
            begun.append(loop.time())

        def other(blocking: int) -> None:
            ages.append(loop.time() - begun[-1] if begun else math.inf)
            loop.block(blocking / 100)

        interval = urgent / 100
        for number, (every, blocking) in enumerate(made):
            clock.every(f"other {number}", every / 100, functools.partial(other, blocking), owner="test")
        renewing = clock.every("renew", interval, renew, owner="test", urgent=True)

        await asyncio.sleep(12.0)

        assert ages
        assert max(ages) <= interval / 2 + EPSILON
        # It runs at its own times too: up to its slack early, beside another duty, and late only inside a longer block.
        longest = max(blocking for _, blocking in made) / 100
        bound = interval + renewing.slack + longest + EPSILON
        assert max(late - early for early, late in itertools.pairwise(begun)) <= bound

    run(main)
