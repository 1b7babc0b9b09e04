"""In a control group with a real limit: the kernel kills what takes all at once, and nothing of what leaks."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import pytest

from headrace.errors import JobFailed
from headrace.settings import load_settings
from tests.apps import leaky
from tests.support.groups import enter, memory_group
from tests.worker.command import WorkerCommand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.queue import Queue
    from headrace.server import PrivateServer

MAX_STALLED = 1
LOST = "worker process ran out of memory; what kills it again and again is dead after HEADRACE_MAX_STALLED"

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(server: PrivateServer, prefix: str) -> dict[str, str]:
    return {
        "REDIS_URL": server.url,
        "HEADRACE_PREFIX": prefix,
        "MEMORY_OPTIMIZATION_INTERVAL_MS": "500",
        "QUEUE_STALLED_INTERVAL": "1000",
        "HEADRACE_MAX_STALLED": str(MAX_STALLED),
    }


@pytest.fixture
async def queue(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queue]:
    monkeypatch.setattr(leaky.app, "settings", load_settings(environ=environment, dotenv=None))
    async with leaky.app:
        yield leaky.app.queue("leaky")


async def test_a_job_that_takes_all_memory_at_once_is_dead_and_the_kernel_is_named(
    queue: Queue, environment: dict[str, str]
) -> None:
    with memory_group(250) as group:
        killer = await leaky.steady.enqueue(2_000_000)
        others = await leaky.steady.enqueue_many([((8, 0.1), {})] * 40)

        with WorkerCommand(
            "tests.apps.leaky:app", "-p", "2", "-c", "4",
            environment=environment, preexec_fn=functools.partial(enter, group),
        ) as command:  # fmt: skip
            with pytest.raises(JobFailed):
                await killer.result(timeout=30)
            done = await asyncio.gather(*(job.result(timeout=30) for job in others))
            await asyncio.to_thread(command.terminate)
            lines = command.lines
        kills = group.oom_kills()

    await killer.refresh()
    assert killer.details is not None
    assert killer.details.reason == "stalled"
    assert kills == MAX_STALLED + 1
    lost = [line for line in lines if line["message"] == LOST]
    assert len(lost) == MAX_STALLED + 1
    assert all("killed by the kernel: the memory of its control group ran out" in line["memory"] for line in lost)
    assert len(done) == len(others)
    assert (await queue.stats()).failed == 1

    # Red when: the supervisor takes no note of the kernel's count.


async def test_workers_that_leak_are_replaced_before_the_kernel_kills_any(
    queue: Queue, environment: dict[str, str]
) -> None:
    with memory_group(300) as group:
        jobs = await leaky.leak.enqueue_many([((200, 0.02), {})] * 1_500)

        with WorkerCommand(
            "tests.apps.leaky:app", "-p", "2", "-c", "4",
            environment=environment, preexec_fn=functools.partial(enter, group),
        ) as command:  # fmt: skip
            found = await asyncio.gather(*(job.result(timeout=40) for job in jobs))
            await asyncio.to_thread(command.terminate)
            replaced = command.find("worker process is replaced before its memory runs out")
        kills = group.oom_kills()

    assert kills == 0
    assert replaced
    assert len({pid for pid, _ in found}) > 2
    assert {attempt for _, attempt in found} == {1}
    assert (await queue.stats()).failed == 0

    # Red when: a new process is started beside the old one although the group has no room for both.
