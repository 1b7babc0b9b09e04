"""The ceiling of memory of one job in a child process: kept, lifted after it, and said in words."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

import pytest

from headrace.errors import JobFailed, MemoryExceeded
from headrace.worker.ceiling import ceiling
from tests.worker import process_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace

MIB = 1_048_576


def test_what_goes_beyond_the_ceiling_is_refused_and_the_ceiling_is_lifted_after_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)

    with pytest.raises(MemoryExceeded, match="needed more memory than its 32 MB") as caught, ceiling("big", 32):
        bytes(256 * MIB)

    assert isinstance(caught.value, MemoryError)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytes(256 * MIB)) == 256 * MIB


def test_what_stays_below_it_runs() -> None:
    with ceiling("small", 256):
        assert len(bytes(32 * MIB)) == 32 * MIB


def test_without_a_ceiling_a_memory_error_says_that_the_system_refused() -> None:
    with pytest.raises(MemoryExceeded, match="could get no more memory from the system"), ceiling("big", 0):
        raise MemoryError


async def test_a_job_beyond_its_ceiling_is_dead_with_that_reason_and_the_next_one_runs(
    make_app: Callable[..., Headrace],
) -> None:
    app = make_app(processes=1)
    task = app.task(name="take", process=True, attempts=1, memory_limit_mb=64)(process_tasks.take)
    async with app:
        big, small = await task.enqueue(300), await task.enqueue(8)
        worker = app.worker()
        running = asyncio.ensure_future(worker.run())
        with pytest.raises(JobFailed, match="MemoryExceeded"):
            await big.result(timeout=20)

        assert await small.result(timeout=20) == 8 * MIB

        worker.stop()
        await running
