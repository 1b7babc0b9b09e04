"""Our pools under redis-py's Sentinel clients: they find the primary, follow it, and keep their bound."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import redis.sentinel

import headrace.pool
import headrace.pool.sync
from headrace.ids import random_name
from tests.live import until
from tests.support.sentinel import PASSWORD, SENTINEL_PASSWORD, SERVICE, USER, SentinelGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 15.0


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path_factory.mktemp("pools")) as group:
        yield group


@pytest.fixture(params=["asyncio", "threads"])
def threaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "threads")


class Side:
    """A Sentinel client of one kind, whose calls are made alike."""

    def __init__(self, group: SentinelGroup, *, threaded: bool) -> None:
        library: Any = redis.sentinel if threaded else redis.asyncio
        self.threaded = threaded
        self.pool_class: Any = (
            headrace.pool.sync.SentinelConnectionPool if threaded else headrace.pool.SentinelConnectionPool
        )
        self.sentinel = library.Sentinel(
            [("127.0.0.1", port) for port in group.ports],
            socket_timeout=1.0,
            sentinel_kwargs={"password": SENTINEL_PASSWORD, "socket_timeout": 1.0},
            username=USER,
            password=PASSWORD,
        )
        self.clients: list[Any] = []

    def client(self, *, primary: bool = True, **options: Any) -> Any:
        make = self.sentinel.master_for if primary else self.sentinel.slave_for
        self.clients.append(make(SERVICE, connection_pool_class=self.pool_class, **options))
        return self.clients[-1]

    async def do(self, call: Any, *args: Any, **options: Any) -> Any:
        if self.threaded:
            return await asyncio.to_thread(call, *args, **options)
        return await call(*args, **options)

    async def close(self) -> None:
        for client in [*self.clients, self.sentinel if self.threaded else None, *self.sentinel.sentinels]:
            if client is not None:
                await self.do(client.close if self.threaded else client.aclose)

    async def insist(self, call: Any, *args: Any) -> float:
        """Repeat a call until it works; returns how long that took."""
        began = time.monotonic()
        while True:
            try:
                await self.do(call, *args)
                return time.monotonic() - began
            except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError):
                assert time.monotonic() - began < DEADLINE
                await asyncio.sleep(0.02)


@pytest.fixture
async def side(group: SentinelGroup, *, threaded: bool) -> Any:
    await asyncio.to_thread(group.until_whole)
    side = Side(group, threaded=threaded)
    yield side
    await side.close()


async def test_the_primary_and_the_replicas_are_found(side: Side, group: SentinelGroup) -> None:
    key = f"found-{random_name(8)}"
    primary, replica = side.client(max_connections=3), side.client(primary=False, max_connections=3)

    await side.do(primary.set, key, "value")
    assert await side.do(primary.wait, 2, 5_000) == 2

    assert await side.do(replica.get, key) == b"value"
    assert (await side.do(primary.role))[0] in {b"master", "master"}
    assert (await side.do(replica.role))[0] in {b"slave", "slave"}
    pool = primary.connection_pool
    assert pool.master_address == ("127.0.0.1", group.servers[group.primary()].port)
    assert "service=main(master)" in repr(pool)
    assert pool.name == "main (primary)"
    with pytest.raises(redis.ReadOnlyError):
        await side.do(replica.set, key, "other")


async def test_replicas_take_turns(side: Side, group: SentinelGroup) -> None:
    client = side.client(primary=False, max_connections=4)
    pool = client.connection_pool
    held = [await side.do(pool.get_connection) for _ in range(4)]

    ports = {connection.port for connection in held}

    assert ports == {server.port for number, server in enumerate(group.servers) if number != group.primary()}
    for connection in held:
        await side.do(pool.release, connection)


async def test_the_maximum_holds_and_waiters_get_the_error_of_the_pool(side: Side) -> None:
    pool = side.client(max_connections=1, timeout=0.1).connection_pool
    held = await side.do(pool.get_connection)

    with pytest.raises(headrace.errors.PoolTimeout, match=r"pool 'main \(primary\)', lane 'user'"):
        await side.do(pool.get_connection)

    await side.do(pool.release, held)


async def test_a_connection_in_use_at_an_orderly_failover_does_not_come_back(side: Side, group: SentinelGroup) -> None:
    key = f"failover-{random_name(8)}"
    client = side.client(max_connections=4)
    pool = client.connection_pool
    await side.do(client.set, key, 1)
    held = await side.do(pool.get_connection)
    before = group.primary()

    await asyncio.to_thread(group.fail_over)
    await asyncio.to_thread(group.promoted, before)
    # Until then the former primary takes writes, which are lost: replication is asynchronous.
    await asyncio.to_thread(group.until_whole)
    await side.insist(client.incr, key)
    await side.do(pool.release, held)

    async def has_ended() -> bool:
        return not held.is_connected

    await until(has_ended, "the connection to the former primary ends")
    assert await side.do(client.get, key) == b"2"
    assert pool.stats().total <= 4


async def test_callers_go_on_after_the_primary_was_killed(side: Side, group: SentinelGroup) -> None:
    key = f"killed-{random_name(8)}"
    client = side.client(max_connections=4, reconnect_patience=10.0)
    await side.do(client.set, key, 0)
    await side.do(client.wait, 1, 5_000)
    before = group.primary()

    await asyncio.to_thread(group.servers[before].kill)
    lasted = await asyncio.gather(*(side.insist(client.incr, key) for _ in range(12)))
    promoted = group.promoted(before)

    assert int(await side.do(client.get, key)) >= 12
    assert max(lasted) < DEADLINE
    assert promoted > 0
    stats = client.connection_pool.stats()
    assert stats.total <= 4
    assert (stats.active, stats.waiting) == (0, 0)
