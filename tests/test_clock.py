"""The clock: when duties and alarms run, on one timer or none, whatever their callbacks do.

Arbitrary sequences of steps are compared with a model in test_clock_model.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import time

import pytest

from headrace.census import Census, Kind
from headrace.clock import CLOSED_NAMES, TIMER_MINIMUM, Alarm, Clock, Duty
from headrace.duty import BLOCKING, RESOLUTION
from headrace.errors import OptionError, UsageError
from tests.number_loop import NumberLoop, clock_timers, run

EPSILON = RESOLUTION * 2


def test_a_duty_does_not_drift() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        starts: list[float] = []
        clock.every("tick", 0.1, lambda: starts.append(loop.time()), owner="test")

        await asyncio.sleep(1_000.05)

        assert len(starts) == 10_000
        assert all(abs(start - (index + 1) * 0.1) < EPSILON for index, start in enumerate(starts))

    run(main)


def test_duties_of_equal_and_multiple_intervals_wake_the_loop_together() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        # Arrange: added at different times, the duties are still due at the multiples of their intervals.
        counts = [0, 0, 0]
        clock.every("a", 1.0, lambda: _count(counts, 0), owner="test")
        await asyncio.sleep(0.3)
        clock.every("b", 1.0, lambda: _count(counts, 1), owner="test")
        await asyncio.sleep(0.3)
        clock.every("c", 5.0, lambda: _count(counts, 2), owner="test")
        before = loop.timers_set

        await asyncio.sleep(99.5)

        assert counts == [100, 100, 20]
        # One timer for each of the 100 due times; one more is that of the sleep.
        assert loop.timers_set - before == 101

    run(main)


def test_a_duty_nearly_due_runs_along_and_is_not_run_again() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        starts: list[float] = []
        duty = clock.every("tick", 1.0, lambda: starts.append(loop.time()), owner="test")
        alarm = clock.alarm("wake", lambda: None, owner="test")
        alarm.set(0.96)

        await asyncio.sleep(1.5)

        assert starts == [pytest.approx(0.96)]
        assert (duty.runs, duty.skipped, duty.late_maximum) == (1, 0, 0.0)

    run(main)


def test_a_blocked_loop_makes_one_run_of_many_missed_due_times() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        duty = clock.every("tick", 1.0, lambda: None, owner="test")
        await asyncio.sleep(0.5)

        loop.block(10.0)
        await asyncio.sleep(0.1)

        stats = duty.stats()
        assert (stats.runs, stats.skipped) == (1, 9)
        assert stats.late_last == pytest.approx(9.5)
        assert stats.due_in == pytest.approx(0.4)

    run(main)


def test_an_async_run_under_way_is_not_started_again_and_delays_no_other() -> None:
    async def main(_loop: NumberLoop, clock: Clock, census: Census) -> None:
        slow = clock.every("slow", 1.0, lambda: asyncio.sleep(3.5), owner="test")
        quick = clock.every("quick", 1.0, lambda: None, owner="test")

        await asyncio.sleep(10.2)

        assert (slow.runs, slow.skipped) == (3, 7)
        assert (quick.runs, quick.skipped) == (10, 0)
        assert quick.late_maximum <= TIMER_MINIMUM
        assert census.counts() == {Kind.TIMER: 1, Kind.TASK: 1}
        assert slow.stats().running

    run(main)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_failing_duty_is_named_in_the_log_and_harms_no_other(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main(_loop: NumberLoop, clock: Clock, _: Census) -> None:
        def fail() -> None:
            raise RuntimeError("out of water")

        async def fail_later() -> None:
            await asyncio.sleep(0.01)
            fail()

        failing = clock.every("pump", 1.0, fail if kind == "sync" else fail_later, owner="mill")
        other = clock.every("other", 1.0, lambda: None, owner="test")

        await asyncio.sleep(5.5)

        assert (failing.runs, failing.failures, other.runs) == (5, 5, 5)
        # A minute has not passed by the wall clock, so one line stands for all five.
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert (record.__dict__["duty"], record.__dict__["owner"]) == ("pump", "mill")
        assert "out of water" in caplog.text

    run(main)


def test_the_cost_of_runs_is_measured() -> None:
    async def main(_loop: NumberLoop, clock: Clock, _: Census) -> None:
        duty = clock.every("work", 1.0, lambda: time.sleep(0.01), owner="test")

        await asyncio.sleep(2.5)

        stats = duty.stats()
        assert 0.01 <= stats.cost_last <= stats.cost_maximum <= stats.cost_total
        assert stats.cost_total >= 0.02

    run(main)


def test_a_closed_duty_runs_no_more_even_if_it_was_due_at_the_same_time() -> None:
    async def main(_loop: NumberLoop, clock: Clock, census: Census) -> None:
        made: list[Duty] = []

        def close_both() -> None:
            for duty in made:
                duty.close()

        made.extend(clock.every("pair", 1.0, close_both, owner="test") for _ in range(2))

        await asyncio.sleep(3.0)

        assert [duty.runs for duty in made] == [1, 0]
        assert clock.stats() == []
        assert census.is_empty()

    run(main)


def test_what_duties_of_one_name_did_is_counted_also_when_some_have_closed() -> None:
    async def main(_loop: NumberLoop, clock: Clock, _: Census) -> None:
        first, second = (clock.every("renew", 1.0, lambda: None, owner=owner) for owner in ("a", "b"))
        await asyncio.sleep(10.5)
        before = clock.totals()["renew"]

        first.close()
        first.close()

        assert clock.totals()["renew"] == before
        second.close()
        assert (before.runs, clock.totals(), clock.stats()) == (20, {"renew": before}, [])
        for number in range(CLOSED_NAMES * 2):
            clock.alarm(f"alarm {number}", lambda: None, owner="test").close()
        assert len(clock.totals()) == CLOSED_NAMES

    run(main)


def test_moving_an_alarm_later_touches_no_timer() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        rings: list[tuple[int, float]] = []
        alarm = _alarm(clock, 0, loop, rings)
        alarm.set(1.0)
        before = loop.timers_set

        for step in range(10_000):
            alarm.set(1.0 + step / 1_000)

        assert loop.timers_set == before
        await asyncio.sleep(20.0)
        ((_number, at),) = rings
        assert at == pytest.approx(10.999)
        # The sleep, and one look at 1.0 s that found the alarm moved.
        assert loop.timers_set == before + 2

    run(main)


def test_moving_an_alarm_earlier_or_into_the_past_is_noticed() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        rings: list[tuple[int, float]] = []
        first, second = _alarm(clock, 1, loop, rings), _alarm(clock, 2, loop, rings)
        first.set(9.0)
        second.set(9.0)

        first.set(2.0)
        second.set(-5.0)
        await asyncio.sleep(3.0)

        assert rings == [(2, 0.0), (1, 2.0)]
        assert (first.when, second.when) == (None, None)

    run(main)


def test_an_alarm_may_set_itself_again_without_starving_the_loop() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        alarm = clock.alarm("eager", lambda: alarm.set(loop.time()), owner="test")
        alarm.set(0.0)
        for _turn in range(10):
            await asyncio.sleep(0)

        assert 5 <= alarm.runs <= 10
        alarm.close()

    run(main)


def test_a_deadline_that_comes_during_an_async_run_is_made_up_for() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        starts: list[float] = []

        async def work() -> None:
            starts.append(loop.time())
            await asyncio.sleep(1.0)

        alarm = clock.alarm("work", work, owner="test")
        alarm.set(1.0)
        await asyncio.sleep(1.2)
        alarm.set(1.5)

        await asyncio.sleep(5.0)

        assert starts == [1.0, pytest.approx(2.0)]

    run(main)


def test_without_duties_and_deadlines_there_is_no_timer() -> None:
    async def main(loop: NumberLoop, clock: Clock, census: Census) -> None:
        alarm = clock.alarm("idle", lambda: None, owner="test")
        assert (clock_timers(loop), census.entries()) == ([], [])

        alarm.set(5.0)
        assert len(clock_timers(loop)) == 1
        alarm.set(None)

        assert (clock_timers(loop), census.entries()) == ([], [])

    run(main)


def test_callbacks_do_not_see_the_context_of_whoever_set_the_alarm() -> None:
    job: contextvars.ContextVar[str] = contextvars.ContextVar("job", default="none")

    async def main(_loop: NumberLoop, clock: Clock, _: Census) -> None:
        seen: list[str] = []
        alarm = clock.alarm("look", lambda: seen.append(job.get()), owner="test")

        async def work() -> None:
            job.set("j-1")
            alarm.set(0.5)

        await asyncio.create_task(work())
        await asyncio.sleep(1.0)

        assert seen == ["none"]

    run(main)


def test_what_is_added_before_the_start_counts_from_the_start() -> None:
    async def main(loop: NumberLoop, _clock: Clock, census: Census) -> None:
        rings: list[tuple[int, float]] = []
        clock = Clock(census, "second")
        clock.every("tick", 1.0, lambda: rings.append((9, loop.time())), owner="test")
        alarm = _alarm(clock, 1, loop, rings)
        alarm.set(0.5)
        await asyncio.sleep(0.75)
        assert rings == []

        clock.start()
        await asyncio.sleep(1.5)

        assert rings == [(1, 0.75), (9, 1.75)]
        await clock.close()

    run(main)


def test_close_lets_runs_end_within_the_grace_and_cancels_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    async def main(loop: NumberLoop, clock: Clock, census: Census) -> None:
        ends: list[str] = []

        async def work(name: str, seconds: float, *, obeys: bool) -> None:
            end = loop.time() + seconds
            while loop.time() < end:
                try:
                    await asyncio.sleep(end - loop.time())
                except asyncio.CancelledError:
                    ends.append(f"{name} cancelled")
                    if obeys:
                        raise
            ends.append(f"{name} ended")

        closing = clock.every("closing", 1.0, lambda: work("closing", 2.0, obeys=True), owner="test")
        clock.every("short", 1.0, lambda: work("short", 1.0, obeys=True), owner="test")
        clock.every("long", 1.0, lambda: work("long", 20.0, obeys=True), owner="test")
        clock.every("deaf", 1.0, lambda: work("deaf", 30.0, obeys=False), owner="test")
        await asyncio.sleep(1.5)
        closing.close()

        await clock.close(grace=5.0)

        assert loop.time() == pytest.approx(11.5)
        assert ends[:2] == ["short ended", "closing ended"]
        assert sorted(ends[2:]) == ["deaf cancelled", "long cancelled"]
        assert [record.__dict__["duty"] for record in caplog.records] == ["clock: deaf"]
        assert census.counts() == {Kind.TASK: 1}
        await asyncio.sleep(30.0)

    run(main)


def test_a_closed_clock_takes_nothing_new_and_late_alarms_do_no_harm() -> None:
    async def main(_loop: NumberLoop, clock: Clock, census: Census) -> None:
        alarm = clock.alarm("late", lambda: None, owner="test")
        await clock.close()
        await clock.close()

        alarm.set(5.0)

        assert alarm.when is None
        assert census.is_empty()
        with pytest.raises(UsageError, match="is closed"):
            clock.every("tick", 1.0, lambda: None, owner="test")
        with pytest.raises(UsageError, match="is closed"):
            clock.alarm("ring", lambda: None, owner="test")
        with pytest.raises(UsageError, match="is closed"):
            clock.start()

    run(main)


def test_a_duty_may_close_the_clock() -> None:
    async def main(_loop: NumberLoop, clock: Clock, census: Census) -> None:
        duty = clock.every("last", 1.0, clock.close, owner="test")

        await asyncio.sleep(3.0)

        assert (duty.runs, duty.failures) == (1, 0)
        assert census.is_empty()

    run(main)


def test_a_clock_starts_once_and_on_a_loop() -> None:
    clock = Clock(Census())
    with pytest.raises(UsageError, match="no event loop runs"):
        clock.start()

    async def main(_loop: NumberLoop, started: Clock, _: Census) -> None:
        with pytest.raises(UsageError, match="already started"):
            started.start()

    run(main)


@pytest.mark.parametrize("interval", [0, -1, 0.0009, math.nan, math.inf, 31_536_001, "1", None, True])
def test_a_malformed_interval_is_refused(interval: float) -> None:
    clock = Clock(Census())

    with pytest.raises(OptionError, match=r"duty 'tick' of 'test'.* from 0\.001 to 31536000"):
        clock.every("tick", interval, lambda: None, owner="test")

    assert clock.stats() == []


def test_a_malformed_deadline_name_or_callback_is_refused() -> None:
    clock = Clock(Census())
    alarm = clock.alarm("ring", lambda: None, owner="test")

    for when in (math.nan, math.inf, -math.inf):
        with pytest.raises(OptionError, match="finite time of the loop"):
            alarm.set(when)
    with pytest.raises(OptionError, match="expected a name, an owner and a function"):
        clock.alarm("", lambda: None, owner="test")
    with pytest.raises(OptionError, match="expected a name, an owner and a function"):
        clock.every("x", 1.0, 5, owner="test")  # type: ignore[arg-type]  # The claim is about wrong types.


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_on_a_real_loop_alarms_ring_on_time_without_spinning(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    fire = Clock._fire

    def counted(self: Clock) -> None:
        nonlocal looks
        looks += 1
        fire(self)

    monkeypatch.setattr(Clock, "_fire", counted)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = Clock(Census())
        clock.start()
        ring = asyncio.Event()
        alarm = clock.alarm("ring", ring.set, owner="test")
        for wait in (0.0004, 0.0104, 0.0116, 0.02):
            when = loop.time() + wait
            alarm.set(when)
            await asyncio.wait_for(ring.wait(), timeout=10)
            ring.clear()
            assert loop.time() >= when - EPSILON
        await clock.close()

    if kind == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        uvloop.run(main())
    else:
        asyncio.run(main())
    # A loop that rounds down looks once too early for an alarm, never over and over.
    assert 4 <= looks <= 12


def test_an_urgent_duty_goes_before_all_others_and_has_begun_before_they_run() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        order: list[str] = []

        def slow() -> None:
            order.append("slow")
            loop.block(0.5)

        async def renew() -> None:
            order.append("renew")

        clock.every("slow", 1.0, slow, owner="test")
        renewal = clock.every("renew", 1.0, renew, owner="test", urgent=True)

        await asyncio.sleep(1.0 + EPSILON)
        await asyncio.sleep(0.0)

        assert order == ["renew", "slow"]
        assert renewal.late_maximum < EPSILON
        assert [stats.urgent for stats in clock.stats()] == [False, True]

    run(main)


def test_an_urgent_duty_that_comes_due_while_others_run_goes_before_the_rest() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        order: list[str] = []

        def slow(name: str) -> None:
            order.append(name)
            loop.block(0.4)

        for name in ("first", "second", "third"):
            clock.every(name, 1.0, functools.partial(slow, name), owner="test")
        clock.every("renew", 1.3, lambda: order.append("renew"), owner="test", urgent=True)

        await asyncio.sleep(1.0 + EPSILON)
        await asyncio.sleep(0.01)

        assert order[:4] == ["renew", "first", "renew", "second"]

    run(main)


def test_a_duty_that_blocks_the_loop_is_named_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def main(_loop: NumberLoop, clock: Clock, _: Census) -> None:
        clock.every("sum up", 1.0, lambda: time.sleep(BLOCKING), owner="figures")

        await asyncio.sleep(3.5)

    run(main)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (record.__dict__["duty"], record.__dict__["owner"]) == ("sum up", "figures")
    assert record.__dict__["took_ms"] >= BLOCKING * 1_000


def test_a_duty_that_never_ends_is_named_and_delays_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def main(_loop: NumberLoop, clock: Clock, _: Census) -> None:
        stuck = clock.every("hang", 1.0, asyncio.Event().wait, owner="test")
        other = clock.every("tick", 1.0, lambda: None, owner="test")

        await asyncio.sleep(10.5)

        assert (stuck.runs, stuck.skipped) == (1, 9)
        assert other.runs == 10
        assert other.late_maximum < EPSILON
        stuck.close()
        assert stuck.task is not None
        stuck.task.cancel()

    run(main)

    (record,) = caplog.records
    assert (record.levelno, record.__dict__["duty"]) == (logging.WARNING, "hang")


def _count(counts: list[int], index: int) -> None:
    counts[index] += 1


def _alarm(clock: Clock, number: int, loop: NumberLoop, rings: list[tuple[int, float]]) -> Alarm:
    return clock.alarm(f"alarm {number}", lambda: rings.append((number, loop.time())), owner="test")
