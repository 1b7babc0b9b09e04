"""An idle worker is woken for every queue that it could take jobs from, whatever kept it from that queue before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace.worker.waking import BLOCK
from tests.live import DEADLINE, Gate, hold_replies, until, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from headrace.worker.worker import Worker
    from tests.support.raw import Raw

#: Far less than the survey and the blocking call take, which would find the job too.
SOON = 3.0


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app(lease=60.0) as app:
        yield app


async def blocked(worker: Worker, names: set[str]) -> None:
    """Wait until the worker blocks on just these queues."""

    async def probe() -> bool:
        parts = worker._parts
        assert parts is not None
        return parts.waking.blocked == {parts.queues[name].calls.wake for name in names}

    await until(probe, f"the worker blocks on {names}")


async def test_a_worker_is_woken_for_a_queue_that_was_at_its_limit_when_it_blocked(app: Headrace) -> None:
    gate = Gate()

    @app.task(queue="few")
    async def few(name: str) -> None:
        await gate.pass_through(name)

    async with working(app, {"many": None, "few": 1}) as worker:  # type: ignore[arg-type]  # limits are passed through
        first = await few.enqueue("first")
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        await blocked(worker, {"many"})
        gate.open.set()
        await first.result(timeout=DEADLINE)
        await blocked(worker, {"many", "few"})

        second = await few.enqueue("second")
        await second.result(timeout=SOON)

    assert gate.runs == ["first", "second"]


async def test_a_worker_is_woken_for_a_queue_that_was_paused_when_it_blocked(app: Headrace) -> None:
    @app.task(queue="rests")
    async def work() -> int:
        return 1

    await app.queue("rests").pause()
    async with working(app, ["open", "rests"]) as worker:
        await blocked(worker, {"open"})
        await app.queue("rests").resume()
        await blocked(worker, {"open", "rests"})

        job = await work.enqueue()

        assert await job.result(timeout=SOON) == 1


async def test_a_wake_up_is_not_forgotten_by_the_reply_of_an_older_reserve(app: Headrace) -> None:
    @app.task
    async def work() -> int:
        return 1

    async with working(app) as worker:
        await blocked(worker, {"default"})
        parts = worker._parts
        assert parts is not None
        arrived, let_go = hold_replies(worker)
        parts.queues["default"].hot = True
        parts.flights.kick()
        await asyncio.wait_for(arrived.wait(), DEADLINE)

        job = await work.enqueue()
        await blocked(worker, set())
        let_go.set()

        assert await job.result(timeout=SOON) == 1


async def test_a_queue_whose_wake_list_is_no_list_keeps_no_other_queue_waiting(app: Headrace, raw: Raw) -> None:
    @app.task(queue="sound")
    async def work() -> int:
        return 1

    broken = app.store.queue("broken").keys.wake
    raw("SET", broken, "no list")
    async with working(app, ["broken", "sound"]):
        jobs = []
        for _ in range(3):
            jobs.append(await work.enqueue())
            await jobs[-1].result(timeout=SOON)
        raw("DEL", broken)

    assert len(jobs) == 3


async def test_a_worker_leaves_no_list_of_its_own(app: Headrace, raw: Raw) -> None:
    async with working(app) as worker:
        await blocked(worker, {"default"})
        own = app.store.queue("default").keys.own_wake(worker.id)
        raw.many([("RPUSH", own, 1), ("PEXPIRE", own, round(BLOCK * 1000))])

    assert raw("EXISTS", own) == 0
