"""How a worker ends: with nothing left to do, and when its call is cancelled, even while it stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace import Fixed, Headrace, current_job
from headrace.server import start_private_server
from headrace.worker import running
from tests.live import DEADLINE, fresh_app, opened, work_off, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from headrace.server import PrivateServer


@pytest.fixture
async def app(server: PrivateServer) -> AsyncIterator[Headrace]:
    async with opened(fresh_app(server.url)) as app:
        yield app


async def test_a_burst_includes_what_its_own_jobs_leave_behind(app: Headrace) -> None:
    ran: list[str] = []

    @app.task(attempts=3, backoff=Fixed(0.0))
    async def work(depth: int) -> None:
        ran.append(f"{depth} attempt {current_job().attempt}")
        if current_job().attempt < 2:
            raise ValueError
        if depth:
            current_job().follow(work, depth - 1)

    await work.enqueue(2)
    await work_off(app)

    assert ran == [f"{depth} attempt {attempt}" for depth in (2, 1, 0) for attempt in (1, 2)]


async def test_a_burst_ends_beside_a_paused_queue(app: Headrace) -> None:
    @app.task(queue="open")
    async def work() -> None: ...

    await app.queue("shut").pause()
    await work.enqueue()
    await work.using(queue="shut").enqueue()
    await work_off(app, ["open", "shut"])

    assert [(await app.queue(name).stats()).waiting for name in ("open", "shut")] == [0, 1]


@pytest.mark.parametrize("stopped_before", [False, True])
async def test_a_cancelled_worker_hands_its_jobs_back_and_leaves_nothing(
    app: Headrace, *, stopped_before: bool
) -> None:
    entered, never = asyncio.Event(), asyncio.Event()

    @app.task
    async def wait() -> None:
        entered.set()
        await never.wait()

    job = await wait.enqueue()
    worker = app.worker(concurrency=1)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(entered.wait(), DEADLINE)
    if stopped_before:
        worker.stop()
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=DEADLINE)

    assert running.cancelled()
    assert worker.signals.stopped.is_set()
    assert (await job.refresh()).status == "waiting"
    assert job.attempts == 0
    assert [row for row in app.census() if row.owner == "worker"] == []
    # Red when: the stop of a worker is cut short by a cancellation.


async def test_a_worker_that_is_stopped_lets_a_running_job_finish(app: Headrace) -> None:
    entered, let_go = asyncio.Event(), asyncio.Event()

    @app.task(keep_result=60)
    async def wait() -> int:
        entered.set()
        await let_go.wait()
        return 42

    job = await wait.enqueue()
    async with working(app) as worker:
        await asyncio.wait_for(entered.wait(), DEADLINE)
        worker.stop()
        let_go.set()

    assert await job.result(DEADLINE) == 42


async def test_a_worker_whose_server_is_gone_ends_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LAST_FLIGHT", 0.1)
    monkeypatch.setattr(running, "LAST_WORDS", 0.2)
    entered, never = asyncio.Event(), asyncio.Event()
    with start_private_server(tmp_path) as mortal:
        async with opened(fresh_app(mortal.url)) as app:

            @app.task
            async def work() -> None:
                entered.set()
                await never.wait()

            await work.enqueue_many([((),)] * 3)
            worker = app.worker(None, 1)
            run = asyncio.create_task(worker.run())
            await asyncio.wait_for(entered.wait(), DEADLINE)

            await asyncio.to_thread(mortal.kill)
            worker.stop(hard=True)
            ended, _ = await asyncio.wait({run}, timeout=DEADLINE)

    assert ended, "the worker still waits for an answer of its server"
    assert worker.stats().completed == 0
