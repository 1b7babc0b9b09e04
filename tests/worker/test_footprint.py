"""Jobs that are looked at: what memory did around them is learned, and they run as all others do."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import JobFailed
from headrace.memory.limits import MIB
from headrace.memory.process import governor
from tests.worker import process_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from headrace import Headrace
    from headrace.memory.leaks import TaskMemory

KEPT: list[bytes] = []


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    yield make_app(processes=1)
    KEPT.clear()


async def learned(app: Headrace, run: Callable[[], Awaitable[Any]], rounds: int) -> dict[str, TaskMemory]:
    """Run something in a worker, each time after a reading has armed the tasks; returns what is known of each task."""
    worker = app.worker(concurrency=8)
    running = asyncio.ensure_future(worker.run())
    await worker.signals.started.wait()
    for _ in range(rounds):
        governor().tick()
        await run()
    found = {task.task: task for task in app.memory.status().tasks}
    worker.stop()
    await running
    return found


async def test_the_task_that_leaks_is_told_from_the_one_that_lets_go(app: Headrace) -> None:
    @app.task(name="footprint-leak", keep_result=60)
    async def leak() -> None:
        KEPT.append(os.urandom(1_024) * 4_096)

    @app.task(name="footprint-steady", keep_result=60)
    async def steady() -> int:
        used = os.urandom(1_024) * 4_096
        await asyncio.sleep(0)
        return len(used)

    async def run() -> None:
        await (await leak.enqueue()).result(timeout=10)
        await (await steady.enqueue()).result(timeout=10)

    async with app:
        tasks = await learned(app, run, 5)

        suspects = [task.task for task in governor().leaks.suspects()]

    assert tasks["footprint-leak"].samples >= 5
    assert 3 * MIB < tasks["footprint-leak"].growth_bytes < 5 * MIB
    assert abs(tasks["footprint-steady"].growth_bytes) < MIB
    assert suspects[0] == "footprint-leak"
    assert "footprint-steady" not in suspects


async def test_what_a_job_of_a_child_process_needs_is_learned_from_the_child(app: Headrace) -> None:
    take = app.task(name="footprint-child", process=True, keep_result=60)(process_tasks.take)

    async def run() -> None:
        sizes.append(sizes[-1] + 4)
        await (await take.enqueue(sizes[-1])).result(timeout=20)

    sizes = [0]

    async with app:
        tasks = await learned(app, run, 4)

    # The first job started the child, which says nothing of the job.
    assert tasks["footprint-child"].samples >= 3
    assert tasks["footprint-child"].footprint_largest_bytes > 3 * MIB


async def test_one_job_in_a_reading_is_looked_at_and_no_more(app: Headrace) -> None:
    @app.task(name="footprint-many", keep_result=60)
    async def many() -> None: ...

    async def run() -> None:
        for job in await many.enqueue_many([((), {})] * 50):
            await job.result(timeout=10)

    async with app:
        tasks = await learned(app, run, 2)

    # A reading of the clock itself may come between.
    assert 2 <= tasks["footprint-many"].samples <= 4


async def test_a_job_that_is_looked_at_fails_and_times_out_as_any_other(app: Headrace) -> None:
    @app.task(name="footprint-raise", attempts=1)
    async def fail() -> None:
        raise ValueError("as it must")

    @app.task(name="footprint-slow", attempts=1, timeout=0.1)
    async def slow() -> None:
        await asyncio.sleep(30)

    async def run() -> None:
        for job in [await fail.enqueue(), await slow.enqueue()]:
            with pytest.raises(JobFailed) as caught:
                await job.result(timeout=10)
            texts.append(str(caught.value))
            details = (await job.refresh()).details
            assert details is not None
            assert "footprint.py" not in details.failures[0].traceback.replace("test_footprint.py", "")

    texts: list[str] = []
    async with app:
        tasks = await learned(app, run, 1)

    assert "ValueError: as it must" in texts[0]
    assert "JobTimeout" in texts[1]
    assert tasks["footprint-raise"].samples >= 1
    assert tasks["footprint-slow"].samples >= 1


async def test_a_middleware_sees_no_difference(app: Headrace) -> None:
    seen: list[str] = []

    class Watch:
        async def before(self, _job: Any) -> None:
            seen.append("before")

        async def after(self, _job: Any, result: Any) -> None:
            seen.append(f"after {result}")

    app.middleware(Watch())

    @app.task(name="footprint-watched", keep_result=60)
    async def watched() -> int:
        await asyncio.sleep(0)
        return 7

    async def run() -> None:
        assert await (await watched.enqueue()).result(timeout=10) == 7

    async with app:
        tasks = await learned(app, run, 2)

    assert seen == ["before", "after 7"] * 2
    assert tasks["footprint-watched"].samples >= 2


async def test_workers_that_come_and_go_leave_the_collector_as_it_was(app: Headrace) -> None:
    @app.task(name="footprint-none")
    async def none() -> None: ...

    before = gc.get_threshold(), gc.get_freeze_count(), len(gc.callbacks)
    for _ in range(10):
        async with app:
            worker = app.worker(burst=True)
            await none.enqueue()
            await worker.run()

    assert (gc.get_threshold(), gc.get_freeze_count(), len(gc.callbacks)) == before
    assert app.census() == []


async def test_a_worker_that_asks_for_it_has_its_collector_set_while_it_runs(
    make_app: Callable[..., Headrace],
) -> None:
    app = make_app(memory_collector="on")

    @app.task(name="footprint-collected", keep_result=60)
    async def collected() -> list[int]:
        return [gc.get_freeze_count(), *gc.get_threshold()]

    before = gc.get_threshold()
    async with app:
        worker = app.worker()
        running = asyncio.ensure_future(worker.run())
        frozen, *thresholds = await (await collected.enqueue()).result(timeout=10)
        worker.stop()
        await running

    assert frozen > 10_000
    assert thresholds == [5_000, 5, 1_000_000]
    assert gc.get_threshold() == before
