"""A lending pool for one test, and what must be left of it: nothing."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.census import Census
from headrace.pool.client_pool import ConnectionPool
from tests.live import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from redis.asyncio.connection import AbstractConnection

    from tests.support.raw import Raw


def seen(raw: Raw, name: str) -> int:
    """How many connections of a client name the server sees."""
    return sum(f"name={name} " in line for line in raw("CLIENT", "LIST").decode().splitlines())


async def until_seen(raw: Raw, name: str, count: int) -> None:
    """Wait until the server sees so many."""

    async def reached() -> bool:
        return seen(raw, name) == count

    await until(reached, f"{count} connections of {name}")


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.asynccontextmanager
async def lending(url: str, **options: Any) -> AsyncIterator[ConnectionPool]:
    """Open a pool beside the block; at the end its census is empty, and none of its tasks runs."""
    census = Census()
    before = asyncio.all_tasks()
    pool = ConnectionPool.from_url(url, census=census, **options)
    try:
        yield pool
    finally:
        await pool.aclose()
    assert census.entries() == []
    assert not {task for task in asyncio.all_tasks() - before if not task.done() and "connection" in task.get_name()}
    agrees(pool)


def agrees(pool: ConnectionPool) -> None:
    """Check that the figures add up."""
    stats = pool.stats()
    assert stats.total == stats.active + stats.idle == stats.opened_total - stats.closed_total
    assert stats.waiting == sum(lane.waiting for lane in stats.lanes.values())


async def waiting(pool: ConnectionPool, count: int, lane: str | None = None) -> None:
    """Wait until so many callers stand in line."""

    async def reached() -> bool:
        stats = pool.stats()
        return (stats.waiting if lane is None else stats.lanes[lane].waiting) == count

    await until(reached, f"{count} callers waiting")


async def borrow(pool: ConnectionPool, count: int) -> list[AbstractConnection]:
    """Take so many connections."""
    return [await pool.get_connection() for _ in range(count)]


async def give_back(pool: ConnectionPool, connections: list[AbstractConnection]) -> None:
    """Release them all."""
    for connection in connections:
        await pool.release(connection)


async def ask(connection: AbstractConnection, *words: str) -> Any:
    """Send one command on a connection."""
    await connection.send_command(*words)
    return await connection.read_response()


async def soon(answer: Awaitable[Any], seconds: float = 10.0) -> Any:
    """Await with a deadline."""
    return await asyncio.wait_for(answer, seconds)
