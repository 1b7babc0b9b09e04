"""Tasks in child processes for tests: registered, waited for, and let go on when told."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from headrace.errors import JobFailed
from tests.live import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from headrace import Headrace, Job


@contextlib.contextmanager
def no_child_left() -> Iterator[None]:
    """Find no child process after the block that was not there before."""
    before = set(psutil.Process().children())
    yield
    left = set(psutil.Process().children()) - before
    for process in left:
        process.kill()
    assert not left


def add(app: Headrace, function: Callable[..., Any], **options: Any) -> Any:
    """Register a function of process_tasks as a task that runs in a child process."""
    return app.task(process=True, **{"attempts": 1, **options})(function)


async def failure_of(job: Job[Any]) -> tuple[str, str]:
    """Wait until the job is dead; return class and message of its last failure."""
    with pytest.raises(JobFailed):
        await job.result(timeout=DEADLINE)
    return job.failures[-1].error, job.failures[-1].message


def children(app: Headrace) -> list[int]:
    return [int(row.name.rpartition(" ")[2]) for row in app.census() if row.kind == "process"]


class Door:
    """Where tasks in other processes knock: it hears the process ids they say, and lets them go on when told."""

    def __init__(self) -> None:
        self.visits: asyncio.Queue[list[int]] = asyncio.Queue(maxsize=100)
        self._guests: list[asyncio.StreamWriter] = []

    async def come_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests.append(writer)
        words = (await reader.readline()).split()
        self.visits.put_nowait([int(word) for word in words])

    async def next(self) -> list[int]:
        return await asyncio.wait_for(self.visits.get(), DEADLINE)

    def let_go(self) -> None:
        for guest in self._guests:
            guest.close()
        self._guests.clear()


@contextlib.asynccontextmanager
async def door() -> AsyncIterator[tuple[Door, int]]:
    found = Door()
    server = await asyncio.start_server(found.come_in, "127.0.0.1", 0)
    async with server:
        yield found, server.sockets[0].getsockname()[1]
        found.let_go()
