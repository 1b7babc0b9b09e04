"""A worker whose tasks leak is held back and replaced before its memory runs out: no job is lost, no attempt burnt."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from headrace.settings import load_settings
from tests.apps import leaky
from tests.worker.command import WorkerCommand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace import Job
    from headrace.queue import Queue
    from headrace.server import PrivateServer

#: What one process may use, MB: about twice what it needs from its start.
BUDGET_MB = 110


@pytest.fixture
def environment(server: PrivateServer, prefix: str) -> dict[str, str]:
    return {
        "REDIS_URL": server.url,
        "HEADRACE_PREFIX": prefix,
        "MEMORY_OPTIMIZATION_INTERVAL_MS": "100",
    }


@pytest.fixture
async def queue(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queue]:
    """The app of the leaking tasks, open in this process beside the workers."""
    monkeypatch.setattr(leaky.app, "settings", load_settings(environ=environment, dotenv=None))
    async with leaky.app:
        yield leaky.app.queue("leaky")
    assert leaky.app.census() == []


async def results(jobs: list[Job[list[int]]]) -> list[list[int]]:
    return list(await asyncio.gather(*(job.result(timeout=30) for job in jobs)))


@pytest.mark.slow
async def test_a_leaking_worker_goes_through_the_steps_and_is_replaced_before_it_ends(
    queue: Queue, environment: dict[str, str]
) -> None:
    environment["HEADRACE_MEMORY_LIMIT"] = str(2 * BUDGET_MB)
    jobs = await leaky.leak.enqueue_many([((96, 0.02), {})] * 1_400)

    with WorkerCommand("tests.apps.leaky:app", "-p", "2", "-c", "4", environment=environment) as command:
        found = await results(jobs)
        stopped = await asyncio.to_thread(command.wait_line, "worker process stopped")
        await asyncio.to_thread(command.terminate)
        lines = command.lines

    # Every job ran once, in its first attempt, although processes were replaced under it.
    assert {attempt for _, attempt in found} == {1}
    assert len({pid for pid, _ in found}) >= 3
    assert (await queue.stats()).failed == 0
    assert not command.find("worker process ended by itself")
    # The first process to go went through every step, and the new one ran before it was told to stop.
    old = stopped["child"]
    words = [line["message"] for line in lines if line["pid"] == old and line["message"].startswith("memory is ")]
    assert words[:3] == ["memory is elevated", "memory is high", "memory is critical"]
    assert any(0 < line["used_mb"] <= 1.1 * BUDGET_MB for line in lines if line["message"] == "memory is critical")
    place = stopped["place"]
    order = [
        (line["message"], line.get("child"))
        for line in lines
        if line.get("place") == place or (line["pid"] == old and line["message"] == "stopping gracefully")
    ]
    asked = order.index(("worker process is replaced before its memory runs out", old))
    began = next(at for at, (message, _) in enumerate(order) if message == "worker process started" and at > asked)
    assert asked < began < order.index(("stopping gracefully", None)) < order.index(("worker process stopped", old))

    # Red when: _renew tells the old process to stop before the new one runs.


async def test_one_process_alone_begins_anew_and_loses_nothing(queue: Queue, environment: dict[str, str]) -> None:
    environment["HEADRACE_MEMORY_LIMIT"] = str(BUDGET_MB)
    jobs = await leaky.leak.enqueue_many([((256, 0.01), {})] * 300)

    with WorkerCommand("tests.apps.leaky:app", "-c", "4", environment=environment) as command:
        found = await results(jobs)
        anew = await asyncio.to_thread(command.wait_line, "the memory of this process is used up; it begins anew")
        await asyncio.to_thread(command.wait_line, "worker started", 2)
        code = await asyncio.to_thread(command.terminate)

    assert {attempt for _, attempt in found} == {1}
    assert anew["pid"] == command.pid
    assert code == 0
    assert os.getpid() not in {pid for pid, _ in found}
    assert (await queue.stats()).failed == 0

    # Red when: the process only stops, and nothing starts in its place.
