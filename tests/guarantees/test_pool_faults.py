"""Whatever happens to the way or the server, the lending pool keeps its bound, recovers by itself and leaks nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headrace.server import start_private_server
from tests.live import until
from tests.support.pools import agrees, borrow, descriptors, give_back, lending, seen, until_seen
from tests.support.proxy import FaultProxy
from tests.support.raw import Raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from headrace.pool.client_pool import ConnectionPool
    from headrace.server import PrivateServer
    from tests.support.stalls import Stalls

MAXIMUM = 8
#: A caller is served this long after the server is back at most, seconds in which the machine did not stand still.
RECOVERY = 1.0


@dataclass
class Load:
    """Users who send a command each as soon as the last has ended, while somebody watches the bound.

    Attributes:
        most: The most connections that the server or the pool counted at any moment.
    """

    pool: ConnectionPool
    raw: Raw | None
    name: str
    users: int = 40
    served: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    most: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _over: bool = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._use()) for _ in range(self.users)]
        self._tasks.append(asyncio.create_task(self._watch()))
        await self.serves(since=0.0, count=self.users * 2)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._over = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 10.0)

    async def _use(self) -> None:
        client = redis.asyncio.Redis(connection_pool=self.pool)
        while not self._over:
            try:
                await client.echo("hello")
            except (redis.RedisError, OSError) as error:
                name = type(error).__name__
                self.errors[name] = self.errors.get(name, 0) + 1
                await asyncio.sleep(0.01)
            else:
                self.served.append(time.monotonic())
                await asyncio.sleep(0.002)

    async def _watch(self) -> None:
        while not self._over:
            stats = self.pool.stats()
            self.most = max(self.most, stats.total + stats.opening)
            if self.raw is not None:
                self.most = max(self.most, seen(self.raw, self.name))
            await asyncio.sleep(0.005)

    async def serves(self, since: float, count: int = 200) -> float:
        """Wait until so many were served after a time; returns when the first was."""

        async def reached() -> bool:
            return len(self.served) >= count and self.served[-count] > since

        await until(reached, f"{count} are served")
        return next(at for at in self.served if at > since)

    async def fails(self) -> None:
        """Wait until an error was seen."""

        async def failed() -> bool:
            return bool(self.errors)

        await until(failed, "the fault is felt")


@contextlib.asynccontextmanager
async def loaded(url: str, raw: Raw | None, name: str, users: int = 40, **options: Any) -> AsyncIterator[Load]:
    """Load a pool beside the block; at its end nothing is left, neither here nor at the server."""
    if raw is not None:
        # It opens with its first command.
        assert seen(raw, name) == 0
    before = descriptors()
    quick = {"socket_timeout": 0.3, "check_timeout": 0.3, "retry": Retry(NoBackoff(), 0), "client_name": name}
    async with lending(url, max_connections=MAXIMUM, **{"min_connections": 2, **quick, **options}) as pool:
        load = Load(pool, raw, name, users)
        async with load:
            yield load
        assert load.most <= MAXIMUM

        async def rests() -> bool:
            # What began to be opened for a caller that a release has served meanwhile is still on its way.
            return pool.stats().opening == 0

        await until(rests, "nothing is being opened any more")
        stats = pool.stats()
        assert (stats.active, stats.waiting) == (0, 0)
        agrees(pool)
        if raw is not None:
            await until_seen(raw, name, pool.stats().total)
    if raw is not None:
        await until_seen(raw, name, 0)

    async def let_go() -> bool:
        return descriptors() <= before

    await until(let_go, "all files are closed")


@pytest.fixture
def way(server: PrivateServer, tmp_path: Path) -> Iterator[FaultProxy]:
    """A TCP way to the server that can be made a bad one."""
    with FaultProxy(tmp_path, server.url, tcp=True) as proxy:
        yield proxy


async def test_a_pool_recovers_from_cut_connections(way: FaultProxy, raw: Raw, prefix: str, stalls: Stalls) -> None:
    async with loaded(way.url, raw, prefix) as load:
        # Until somebody is in the middle of a command.
        while not load.errors:
            way.cut()
            await asyncio.sleep(0.01)
        back = time.monotonic()
        way.cut()

        first = await load.serves(since=back)

    assert stalls.lasted(back, first) < RECOVERY

    # Red when: closing.py or checking.py lets a connection that has ended be borrowed again and again.


async def test_idle_connections_that_were_cut_are_replaced_without_a_caller(
    way: FaultProxy, raw: Raw, prefix: str, stalls: Stalls
) -> None:
    async with lending(way.url, max_connections=8, min_connections=4, client_name=prefix) as pool:
        await pool.start()
        assert seen(raw, prefix) == 4
        opened = pool.stats().opened_total

        back = time.monotonic()
        way.cut()

        async def reopened() -> bool:
            return pool.stats().opened_total == opened + 4 and seen(raw, prefix) == pool.stats().idle == 4

        await until(reopened, "the minimum is open again")
        assert stalls.lasted(back) < RECOVERY
        assert pool.stats().errors == {"ConnectionEnded": 4}
        assert pool.stats().failed_total == 4

    # Red when: transport.py no longer watches the streams of idle connections.


async def test_a_pool_recovers_from_a_black_hole(way: FaultProxy, raw: Raw, prefix: str, stalls: Stalls) -> None:
    async with loaded(way.url, None, prefix) as load:
        way.silent = True
        await load.fails()
        # Long enough for every connection in use to be given up, and for openings that hang.
        await asyncio.sleep(1.5)
        assert way.swallowed > 0
        back = time.monotonic()
        way.silent = False

        first = await load.serves(since=back)

    assert stalls.lasted(back, first) < RECOVERY
    await until_seen(raw, prefix, 0)

    # Red when: opening.py waits for attempts that hang until their own timeout.


async def test_a_pool_recovers_from_half_open_connections(way: FaultProxy, prefix: str, stalls: Stalls) -> None:
    async with loaded(way.url, None, prefix, users=1, min_connections=0) as load:
        await give_back(load.pool, await borrow(load.pool, MAXIMUM - 1))
        struck = time.monotonic()
        way.deafen()
        await load.fails()

        first = await load.serves(since=struck + 0.01)
        assert way.swallowed > 0

    # The other side is there all the time: one command has to run out, and one check, and then all are replaced.
    assert stalls.lasted(struck, first) < 0.6 + RECOVERY
    assert sum(load.errors.values()) == 1

    # Red when: core.py lends what was idle beside a connection that proved dead, without a check.


async def test_a_half_open_idle_connection_is_found_before_it_is_lent(
    way: FaultProxy, prefix: str, stalls: Stalls
) -> None:
    options: dict[str, Any] = {"check_after": 0.05, "check_timeout": 0.2}
    async with lending(way.url, max_connections=8, min_connections=6, client_name=prefix, **options) as pool:
        await pool.start()
        way.deafen()
        await asyncio.sleep(1.1)
        began = time.monotonic()

        answer = await redis.asyncio.Redis(connection_pool=pool).echo("hello")

        # One check runs out, and then nobody asks the others one by one.
        assert answer in {b"hello", "hello"}
        assert time.monotonic() - began >= 0.2
        assert stalls.lasted(began) < 0.2 + RECOVERY
        assert way.swallowed > 0
        assert pool.stats().errors["TimeoutError"] == 1

    # Red when: checking.py takes silence for an answer, or core.py keeps the others after it.


async def test_a_slow_way_makes_callers_wait_and_nothing_else(
    way: FaultProxy, raw: Raw, prefix: str, stalls: Stalls
) -> None:
    async with loaded(way.url, raw, prefix, socket_timeout=2.0) as load:
        way.delay = 0.15
        slow = time.monotonic()
        await load.serves(since=slow + 0.2, count=MAXIMUM * 3)
        waits = load.pool.stats().response
        back = time.monotonic()
        way.delay = 0.0

        first = await load.serves(since=back)

    assert waits.maximum > 0.15
    assert load.errors == {}
    assert stalls.lasted(back, first) < RECOVERY
    assert load.pool.stats().opened_total == MAXIMUM

    # Red when: the pool takes slowness for a fault and opens other connections.


async def test_a_pool_recovers_from_refused_connections(way: FaultProxy, raw: Raw, prefix: str, stalls: Stalls) -> None:
    async with loaded(way.url, raw, prefix) as load:
        way.shut()
        await load.fails()
        await until_seen(raw, prefix, 0)
        await asyncio.sleep(1.2)
        assert load.pool.stats().total == 0
        back = time.monotonic()
        way.open()

        first = await load.serves(since=back)

    assert stalls.lasted(back, first) < RECOVERY
    assert {"ClientConnectionLost", "ConnectionError"} >= set(load.errors)

    # Red when: opening.py backs off for as long as the server is away.


async def test_an_outage_with_300_users_makes_no_storm(
    server: PrivateServer, tmp_path: Path, prefix: str, stalls: Stalls
) -> None:
    with FaultProxy(tmp_path, server.url, tcp=True) as way:
        options: dict[str, Any] = {"max_connections": 20, "retry": Retry(NoBackoff(), 0), "client_name": prefix}
        async with lending(way.url, **options) as pool:
            load = Load(pool, None, prefix, users=300)
            async with load:
                way.refusing = True
                way.cut()
                began, before = time.monotonic(), way.accepted
                await load.fails()
                await asyncio.sleep(2.0)
                attempts, took = way.accepted - before, time.monotonic() - began
                back = time.monotonic()
                way.refusing = False

                first = await load.serves(since=back)

    assert sum(load.errors.values()) > 300
    # 16 in parallel when the server has just gone, once for each holder whose client opens anew, and then the series.
    assert attempts <= 16 + 20 + 6 + took / 0.1
    assert stalls.lasted(back, first) < RECOVERY

    # Red when: opening.py makes an attempt for each caller.


async def test_a_server_without_room_leaves_the_pool_what_it_has(tmp_path: Path, prefix: str, stalls: Stalls) -> None:
    with start_private_server(tmp_path, port=0, extra=("--save", "", "--appendonly", "no")) as server:  # noqa: SIM117 - reads better
        with Raw(server.socket_url) as raw:
            # Beside this client and the others that the server has of its own, three of the eight fit.
            clients = len(raw("CLIENT", "LIST").decode().splitlines())
            raw("CONFIG", "SET", "maxclients", str(clients + 3))
            async with loaded(server.url, raw, prefix) as load:
                await load.serves(since=time.monotonic())
                refused = int(info(raw, "stats", "rejected_connections"))
                assert load.pool.stats().total == seen(raw, prefix) == 3
                back = time.monotonic()
                raw("CONFIG", "SET", "maxclients", "1000")

                await load.serves(since=back)
                grown = await grows(load.pool, MAXIMUM)
                served = len(load.served)

    assert refused > 0
    assert stalls.lasted(back, grown) < RECOVERY
    assert served > 100
    # Who waits is served by what is released: a refused opening is no reason to fail.
    assert sum(load.errors.values()) <= 40

    # Red when: the pool ends the waits of all callers at an opening that the server has refused.


async def test_a_pool_recovers_from_a_restart_of_the_server(tmp_path: Path, prefix: str, stalls: Stalls) -> None:
    with start_private_server(tmp_path, port=0, extra=("--appendonly", "yes")) as server:
        async with loaded(server.url, None, prefix) as load:
            await redis.asyncio.Redis(connection_pool=load.pool).set("kept", "yes")
            await asyncio.to_thread(server.kill)
            await load.fails()
            await asyncio.to_thread(server.start)
            back = time.monotonic()

            first = await load.serves(since=back)

            assert await redis.asyncio.Redis(connection_pool=load.pool).get("kept") in {b"yes", "yes"}
            with Raw(server.socket_url) as raw:
                most = max([seen(raw, prefix) for _ in range(20)])
        with Raw(server.socket_url) as raw:
            await until_seen(raw, prefix, 0)

    assert stalls.lasted(back, first) < RECOVERY
    assert 0 < most <= MAXIMUM

    # Red when: checking.py takes the sockets of the killed server for good ones.


def info(raw: Raw, section: str, name: str) -> str:
    lines = raw("INFO", section).decode().splitlines()
    return str(next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:")))


async def grows(pool: ConnectionPool, count: int) -> float:
    """Wait until the pool has so many connections; returns when."""

    async def reached() -> bool:
        return pool.stats().total == count

    await until(reached, f"{count} are open")
    return time.monotonic()
