"""Time limits on one alarm of the clock: they end blocks as `asyncio.timeout` does, and have one timer together."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.census import Census
from headrace.clock import TIMER_MINIMUM, Clock
from headrace.deadlines import Deadlines
from tests.number_loop import NumberLoop, clock_timers, run


def test_a_block_that_takes_too_long_ends_on_time_and_one_that_does_not_is_left_alone() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        deadlines = Deadlines(clock, "end calls", "test")

        async with deadlines.within(1.0):
            await asyncio.sleep(0.9)
        with pytest.raises(TimeoutError):
            async with deadlines.within(1.0):
                await asyncio.Event().wait()

        assert loop.time() == pytest.approx(1.9)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main)


def test_a_thousand_waits_have_one_timer() -> None:
    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        deadlines = Deadlines(clock, "end calls", "test")

        async def wait(number: int) -> float:
            with pytest.raises(TimeoutError):
                async with deadlines.within(1.0 + number / 1000):
                    await asyncio.Event().wait()
            return loop.time()

        tasks = [asyncio.create_task(wait(number)) for number in range(1_000)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(clock_timers(loop)) == len([one for one in loop._scheduled if not one.cancelled()]) == 1  # type: ignore[attr-defined]  # asyncio's own list
        ends = await asyncio.gather(*tasks)

        assert ends == [pytest.approx(1.0 + number / 1000) for number in range(1_000)]

    run(main)


def test_a_cancellation_from_outside_stays_one() -> None:
    async def main(_loop: NumberLoop, clock: Clock, _: Census) -> None:
        deadlines = Deadlines(clock, "end calls", "test")

        async def wait() -> None:
            async with deadlines.within(1.0):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task})

        assert task.cancelled()
        assert deadlines._limits == {}

    run(main)


async def test_without_a_running_clock_a_block_ends_all_the_same() -> None:
    clock = Clock(Census())
    deadlines = Deadlines(clock, "end calls", "test")

    with pytest.raises(TimeoutError):
        async with deadlines.within(0.01):
            await asyncio.Event().wait()
    clock.start()
    await clock.close()
    with pytest.raises(TimeoutError):
        async with deadlines.within(0.01):
            await asyncio.Event().wait()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50), st.integers(1, 80)), min_size=1, max_size=12))
def test_blocks_end_as_with_a_timer_each(plan: list[tuple[int, int, int]]) -> None:
    """Each block begins, has a limit, and would take a while, in units of 10 ms; limits are odd multiples of 5 ms."""

    async def main(loop: NumberLoop, clock: Clock, _: Census) -> None:
        deadlines = Deadlines(clock, "end calls", "test")

        async def block(begin: int, limit: int, takes: int) -> tuple[bool, float]:
            await asyncio.sleep(begin / 100)
            try:
                async with deadlines.within(limit / 100 + 0.005):
                    await asyncio.sleep(takes / 100)
            except TimeoutError:
                return True, loop.time()
            return False, loop.time()

        ends = await asyncio.gather(*(block(*one) for one in plan))

        for (begin, limit, takes), (timed_out, when) in zip(plan, ends, strict=True):
            expected = (begin + min(takes, limit + 0.5)) / 100
            assert timed_out == (takes > limit)
            # A clock that woke a rounding error too early wakes again after its least wait.
            assert when == pytest.approx(expected, abs=TIMER_MINIMUM + 1e-5)

    run(main)
