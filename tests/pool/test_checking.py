"""A connection is looked at before each use; the server is asked only after it was idle for long, or on suspicion."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace.server import start_private_server
from tests.support.pools import ask, borrow, give_back, lending, seen, soon, until_seen
from tests.support.raw import Raw
from tests.support.scripted import scripted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.stalls import Stalls


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """A server that nobody else sends a PING."""
    with start_private_server(tmp_path_factory.mktemp("own"), extra=("--appendonly", "no", "--save", "")) as server:
        yield server


@pytest.fixture
def counted(own: PrivateServer) -> Iterator[Raw]:
    with Raw(own.url) as raw:
        raw("CONFIG", "RESETSTAT")
        yield raw


def pings(raw: Raw) -> int:
    """How many PINGs the server has answered."""
    for line in raw("INFO", "commandstats").decode().splitlines():
        if line.startswith("cmdstat_ping:"):
            return int(line.partition("calls=")[2].partition(",")[0])
    return 0


async def test_a_connection_that_is_used_is_not_asked(own: PrivateServer, counted: Raw) -> None:
    async with lending(own.url, max_connections=2, check_after=30.0) as pool:
        for _ in range(200):
            await give_back(pool, await borrow(pool, 2))

        assert pings(counted) == 0
        assert pool.stats().calls_total == 400


async def test_a_connection_is_asked_once_after_it_was_idle_for_long(own: PrivateServer, counted: Raw) -> None:
    async with lending(own.url, max_connections=1, check_after=0.15) as pool:
        await give_back(pool, await borrow(pool, 1))
        assert pings(counted) == 0
        await asyncio.sleep(0.2)

        await give_back(pool, await borrow(pool, 1))
        assert pings(counted) == 1
        await give_back(pool, await borrow(pool, 1))

        assert pings(counted) == 1
        assert pool.stats().opened_total == 1


async def test_a_connection_that_broke_puts_the_others_under_suspicion_once(own: PrivateServer, counted: Raw) -> None:
    async with lending(own.url, max_connections=4) as pool:
        held = await borrow(pool, 4)
        await give_back(pool, held[1:])

        await held[0].disconnect()
        await pool.release(held[0])
        for _ in range(3):
            await give_back(pool, await borrow(pool, 3))

        assert pings(counted) == 3
        assert pool.stats().errors == {"ConnectionBroken": 1}


async def test_a_connection_just_opened_is_not_asked(own: PrivateServer, counted: Raw) -> None:
    async with lending(own.url, max_connections=1, check_after=0.0) as pool:
        first = await pool.get_connection()
        assert pings(counted) == 0
        await pool.release(first)

        await pool.release(await pool.get_connection())

        assert pings(counted) == 1


async def test_what_the_server_killed_while_idle_is_replaced_before_anybody_asks(
    own: PrivateServer, counted: Raw, prefix: str
) -> None:
    async with lending(own.url, max_connections=3, client_name=prefix) as pool:
        held = await borrow(pool, 3)
        numbers = [await ask(connection, "CLIENT", "ID") for connection in held]
        await give_back(pool, held)

        for number in numbers[:2]:
            counted("CLIENT", "KILL", "ID", number)

        await until_seen(counted, prefix, 1)
        await asyncio.sleep(0.02)
        assert (pool.stats().idle, pool.stats().errors) == (1, {"ConnectionEnded": 2})
        for connection in await borrow(pool, 3):
            assert await ask(connection, "ECHO", "x") in {b"x", "x"}
            await pool.release(connection)
        assert seen(counted, prefix) == pool.stats().total == 3


async def test_what_the_server_killed_while_in_use_is_not_lent_again(
    own: PrivateServer, counted: Raw, prefix: str
) -> None:
    async with lending(own.url, max_connections=2, client_name=prefix) as pool:
        held = await pool.get_connection()
        counted("CLIENT", "KILL", "ID", await ask(held, "CLIENT", "ID"))
        await asyncio.sleep(0.02)

        # Its holder did not notice.
        await pool.release(held)

        assert pool.stats().idle == 0
        again = await soon(pool.get_connection())
        assert await ask(again, "ECHO", "x") in {b"x", "x"}
        await pool.release(again)


async def test_a_connection_that_its_holder_opened_anew_is_watched_again(
    own: PrivateServer, counted: Raw, prefix: str
) -> None:
    async with lending(own.url, max_connections=1, client_name=prefix) as pool:
        held = await pool.get_connection()
        counted("CLIENT", "KILL", "ID", await ask(held, "CLIENT", "ID"))
        await asyncio.sleep(0.02)
        await held.disconnect()
        await held.connect()  # type: ignore[no-untyped-call]  # redis-py has no types here

        await pool.release(held)
        assert await soon(pool.get_connection()) is held
        number = await ask(held, "CLIENT", "ID")
        await pool.release(held)
        counted("CLIENT", "KILL", "ID", number)

        await until_seen(counted, prefix, 0)
        await asyncio.sleep(0.02)
        assert pool.stats().total == 0


async def test_a_check_without_an_answer_ends_in_time_and_drops_what_was_idle(tmp_path: Path, stalls: Stalls) -> None:
    options: dict[str, Any] = {"check_after": 0.0, "check_timeout": 0.2}
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=5, **options) as pool:
        await give_back(pool, await borrow(pool, 5))
        fake.handshake[b"PING"] = None
        began = time.monotonic()

        got = await soon(pool.get_connection())

        assert time.monotonic() - began > 0.18
        assert stalls.lasted(began) < 1.0
        assert fake.opened == 6
        assert pool.stats().total == 1
        assert pool.stats().errors["TimeoutError"] == 1
        await pool.release(got)


async def test_who_finds_a_dead_connection_stands_first_in_line(tmp_path: Path) -> None:
    served: list[str] = []

    async def use(name: str) -> None:
        connection = await pool.get_connection()
        served.append(name)
        await pool.release(connection)

    options: dict[str, Any] = {"check_after": 0.0, "check_timeout": 0.2}
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=1, **options) as pool:
        await give_back(pool, await borrow(pool, 1))
        fake.handshake[b"PING"] = None
        users = [asyncio.create_task(use(name)) for name in ("first", "second", "third")]
        await asyncio.sleep(0.1)
        del fake.handshake[b"PING"]

        await soon(asyncio.gather(*users))

        assert served == ["first", "second", "third"]


async def test_a_check_that_is_cancelled_gives_the_place_back(tmp_path: Path) -> None:
    options: dict[str, Any] = {"check_after": 0.0, "check_timeout": 5.0}
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=1, **options) as pool:
        await give_back(pool, await borrow(pool, 1))
        fake.handshake[b"PING"] = None
        caller = asyncio.create_task(pool.get_connection())
        await asyncio.sleep(0.05)
        assert pool.stats().active == 1

        caller.cancel()
        await asyncio.wait({caller})

        assert pool.stats().active == 0
        # The answer may still come; nobody gets that connection.
        await pool.release(await soon(pool.get_connection()))
        assert fake.opened == 2
