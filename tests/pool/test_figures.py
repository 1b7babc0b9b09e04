"""The figures of both pools count the same things: a connection that broke is a failure, whoever finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from headrace.pool import ConnectionPool
from headrace.pool.sync import ConnectionPool as SyncConnectionPool
from tests.live import until

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.support.raw import Raw


def end_clients(raw: Raw, name: str) -> None:
    """Have the server end the connections of a name."""
    for line in raw("CLIENT", "LIST").decode().splitlines():
        if f"name={name} " in line:
            raw("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))


def test_a_connection_that_broke_in_use_is_counted_by_threads(server: PrivateServer, raw: Raw, prefix: str) -> None:
    with SyncConnectionPool.from_url(server.url, client_name=prefix) as pool:
        connection = pool.get_connection()
        end_clients(raw, prefix)
        with pytest.raises(redis.ConnectionError):
            connection.read_response()

        pool.release(connection)

        stats = pool.stats()
        assert (stats.failed_total, stats.errors) == (1, {"ConnectionBroken": 1})


def test_a_connection_that_ended_idle_is_counted_by_threads(server: PrivateServer, raw: Raw, prefix: str) -> None:
    with SyncConnectionPool.from_url(server.url, client_name=prefix) as pool:
        pool.release(pool.get_connection())
        end_clients(raw, prefix)

        pool.release(pool.get_connection())

        stats = pool.stats()
        assert (stats.failed_total, stats.errors) == (1, {"ConnectionEnded": 1})


async def test_a_connection_that_ended_idle_is_counted_by_the_asyncio_pool(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    async with ConnectionPool.from_url(server.url, client_name=prefix) as pool:
        await pool.release(await pool.get_connection())

        async def is_noticed() -> bool:
            return pool.stats().idle == 0

        end_clients(raw, prefix)
        await until(is_noticed, "the pool hears that its idle connection has ended")

        stats = pool.stats()
        assert (stats.failed_total, stats.errors) == (1, {"ConnectionEnded": 1})
