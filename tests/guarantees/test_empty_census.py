"""Closing an app leaves no timer, task, subscription, connection, thread or child process of it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from headrace.errors import PoolClosed, ResultTimeout
from tests.support.crew import DEADLINE

if TYPE_CHECKING:
    from tests.support.crew import Crew


def square(number: int) -> int:
    """Run in a child process."""
    return number * number


def alive() -> tuple[set[str], set[int], set[int]]:
    """Threads, child processes and open files of this process."""
    files = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    threads = {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
    return threads, {child.pid for child in psutil.Process().children(recursive=True)}, files


async def test_nothing_is_left_of_an_app_that_did_everything(crew: Crew) -> None:
    await asyncio.to_thread(int)
    before = alive()
    app = crew.app()
    heard: list[str] = []

    @app.task(name="in_thread", queue="work", keep_result=60.0)
    def in_thread(number: int) -> int:
        return number + 1

    @app.task(name="asleep", queue="work")
    async def asleep() -> None:
        await asyncio.sleep(60.0)

    in_child = app.task(name="square", queue="work", process=True, keep_result=60.0)(square)
    async with app:
        app.subscribe("job.*", lambda event: heard.append(event.name))
        worker = app.worker(["work"], concurrency=4, grace=0.0)
        running = asyncio.create_task(worker.run())
        assert await (await in_thread.enqueue(1)).result(timeout=DEADLINE) == 2
        assert await (await in_child.enqueue(3)).result(timeout=DEADLINE) == 9
        job = await asleep.enqueue()
        with pytest.raises(ResultTimeout):
            await job.result(timeout=0.05)
        waiting = asyncio.create_task(job.result())
        await asyncio.to_thread(in_thread.enqueue_sync, 5)
        kinds = {str(row.kind) for row in app.census()}
        assert kinds >= {"timer", "task", "subscription", "connection", "thread", "process"}
        worker.stop(hard=True)
        await running

    with pytest.raises(PoolClosed):
        await waiting
    assert app.census() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert alive() == before
    assert "job.completed" in heard

    # Red when: session.py does not close its pool, or running.py its threads.


async def test_nothing_is_left_of_a_worker_that_was_cancelled_nor_of_a_block_that_raised(crew: Crew) -> None:
    before = alive()
    app = crew.app()

    async def block() -> None:
        async with app:
            worker = app.worker(["work"])
            running = asyncio.create_task(worker.run())
            await worker.signals.reserved.wait()
            running.cancel()
            await asyncio.wait({running}, timeout=DEADLINE)
            assert running.cancelled()
            await app.step.enqueue(1)
            raise KeyError("the user's own")

    with pytest.raises(KeyError):
        await block()

    assert app.census() == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert alive() == before

    # Red when: worker.py lets go of its parts only after a stop.
