"""How many jobs a worker asks for: never more than it has slots for, never more ahead than it works off soon."""

from __future__ import annotations

import asyncio
import doctest
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.keys import QueueKeys
from headrace.resp import pack_command
from headrace.worker import plan
from headrace.worker.plan import HORIZON, MAX_ASK, MAX_PREFETCH, Ask, Rate, plan_ask, plan_prefetch, share
from tests.live import DEADLINE, opened, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace

counts = st.integers(0, 20_000)


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(plan)

    assert result.attempted > 0
    assert result.failed == 0


@given(st.floats(0, 1e9), st.integers(1, 10_000))
def test_what_is_held_ahead_is_bounded_and_worked_off_soon(rate: float, concurrency: int) -> None:
    ahead = plan_prefetch(rate, concurrency)

    assert 0 <= ahead <= min(MAX_PREFETCH, 4 * concurrency)
    assert ahead <= rate * HORIZON


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 10_000))
def test_a_faster_worker_never_holds_less_ahead(one: float, other: float, concurrency: int) -> None:
    slow, fast = sorted((one, other))

    assert plan_prefetch(slow, concurrency) <= plan_prefetch(fast, concurrency)


@given(counts, counts, counts, st.integers(1, 5_000))
def test_an_ask_never_starts_more_than_there_are_slots(free: int, buffered: int, target: int, most: int) -> None:
    ask = plan_ask(free, buffered, target, most)

    assert ask.start >= 0
    assert ask.prefetch >= 0
    assert ask.start <= max(0, free - buffered)
    assert ask.total <= min(most, MAX_ASK)


@given(counts, counts, counts)
def test_an_ask_brings_slots_and_what_is_held_ahead_to_their_full(free: int, buffered: int, target: int) -> None:
    ask = plan_ask(free, buffered, target)

    if ask.total < MAX_ASK:
        assert buffered + ask.total == max(buffered, free + target)


@given(st.integers(0, MAX_ASK), st.integers(0, MAX_ASK), st.integers(1, 500))
def test_the_shares_of_all_queues_are_together_what_is_asked_for(start: int, prefetch: int, queues: int) -> None:
    parts = [share(Ask(start, prefetch), queues, turn) for turn in range(queues)]

    assert sum(part.start for part in parts) == start
    assert sum(part.prefetch for part in parts) == prefetch
    assert max(part.start for part in parts) - min(part.start for part in parts) <= 1
    assert max(part.prefetch for part in parts) - min(part.prefetch for part in parts) <= 1


@given(st.lists(st.tuples(st.integers(0, 2_000), st.floats(1e-6, 10.0)), min_size=1))
def test_a_rate_lies_between_the_slowest_and_the_fastest_that_was_seen(steps: list[tuple[int, float]]) -> None:
    rate = Rate()
    for jobs, seconds in steps:
        rate.add(jobs, seconds)

    seen = [jobs / seconds for jobs, seconds in steps]
    assert min(seen) * (1 - 1e-9) <= rate.value <= max(seen) * (1 + 1e-9)


def test_a_rate_forgets_what_is_long_past() -> None:
    rate = Rate()
    rate.add(1_000, 0.1)

    for _ in range(10):
        rate.add(10, 0.1)

    assert math.isclose(rate.value, 100.0, rel_tol=0.01)


def test_a_rate_of_no_time_is_zero() -> None:
    rate = Rate()

    rate.add(5, 0.0)

    assert rate.value == 0.0


async def test_a_burst_over_more_queues_than_slots_ends_when_all_are_empty(make_app: Callable[..., Headrace]) -> None:
    names = [f"q{number}" for number in range(7)]
    app = make_app()

    @app.task(name="note")
    async def note(left: int) -> None:
        if left:
            await note.using(queue=names[left]).enqueue(left - 1)

    async with opened(app):
        await note.using(queue=names[0]).enqueue(6)
        worker = app.worker(names, 2, burst=True)
        stats = await asyncio.wait_for(worker.run(), DEADLINE)

    assert stats.completed == 7
    assert stats.round_trips < 100


@pytest.mark.parametrize("limit", [None, 1])
async def test_only_jobs_that_have_a_slot_count_as_started(
    make_app: Callable[..., Headrace], limit: int | None
) -> None:
    names = [f"q{number}" for number in range(5)]
    entered, leave = asyncio.Event(), asyncio.Event()
    app = make_app()

    @app.task(name="slow")
    async def slow() -> None:
        entered.set()
        await leave.wait()

    async with opened(app):
        for name in names:
            await slow.using(queue=name).enqueue_many([((),)] * 3)
        queues: Any = dict.fromkeys(names, limit)
        async with working(app, queues, concurrency=2):
            await asyncio.wait_for(entered.wait(), DEADLINE)
            commands = [pack_command("HVALS", QueueKeys(app.settings.prefix, name)["held"]) for name in names]
            replies = await app.control.roundtrip(b"".join(commands), len(commands))
            started = [hold for holds in replies for hold in holds if b"+" in hold]

            # A worker that dies now has burnt the attempts of these, and of no others.
            assert len(started) == 2
            leave.set()
