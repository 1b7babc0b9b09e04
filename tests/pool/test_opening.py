"""Openings: in parallel while the server answers, one guarded series while it does not, and faults of the login."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.credentials import CredentialProvider

from headrace.errors import CommandRefused, ConnectionLost, PoolTimeout
from headrace.pool.opening import is_final
from tests.live import until
from tests.support.pools import agrees, ask, lending, seen, soon, until_seen
from tests.support.proxy import FaultProxy
from tests.support.scripted import scripted

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio.connection import AbstractConnection

    from headrace.server import PrivateServer
    from tests.support.raw import Raw
    from tests.support.stalls import Stalls


async def test_the_minimum_is_opened_in_parallel_and_kept(
    server: PrivateServer, raw: Raw, prefix: str, stalls: Stalls
) -> None:
    held: list[float] = []

    async def log_in_slowly(connection: AbstractConnection) -> None:
        await connection.on_connect()
        held.append(time.monotonic())
        await asyncio.sleep(0.2)

    options: dict[str, Any] = {"redis_connect_func": log_in_slowly, "client_name": prefix}
    async with lending(server.url, max_connections=10, min_connections=8, **options) as pool:
        began = time.monotonic()
        await pool.start()

        assert stalls.lasted(began) < 8 * 0.2 / 2
        assert len(held) == pool.stats().idle == seen(raw, prefix) == 8
        for _ in range(3):
            connection = await pool.get_connection()
            await connection.disconnect()
            await pool.release(connection)

        async def kept() -> bool:
            return pool.stats().idle == 8

        await until(kept, "the minimum is open again")


async def test_no_more_than_the_maximum_are_opened_whatever_is_asked(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=5, open_parallel=3) as pool:
        fake.handshake[b"HELLO"] = None
        callers = [asyncio.create_task(pool.get_connection()) for _ in range(30)]

        await fake.until(lambda it: it.opened == 3)
        await asyncio.sleep(0.05)

        assert (pool.stats().opening, fake.opened) == (3, 3)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    assert fake.opened <= 5


async def test_whoever_cancels_leaves_the_opening_to_the_next(server: PrivateServer) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def log_in_when_let(connection: AbstractConnection) -> None:
        begun.set()
        await go_on.wait()
        await connection.on_connect()

    async with lending(server.url, max_connections=1, redis_connect_func=log_in_when_let) as pool:
        first = asyncio.create_task(pool.get_connection())
        await begun.wait()
        second = asyncio.create_task(pool.get_connection())
        await asyncio.sleep(0)

        first.cancel()
        go_on.set()
        got = await soon(second)

        assert pool.stats().opened_total == 1
        await pool.release(got)


async def test_a_caller_who_waits_for_an_opening_is_served_by_a_release_that_comes_sooner(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=2) as pool:
        first = await pool.get_connection()
        fake.handshake[b"HELLO"] = None
        caller = asyncio.create_task(pool.get_connection())
        await fake.until(lambda it: it.opened == 2)

        await pool.release(first)

        assert await soon(caller) is first
        await pool.release(first)


async def test_a_start_without_a_server_says_why(tmp_path: Path) -> None:
    async with lending(f"unix://{tmp_path / 'none'}", min_connections=2) as pool:
        with pytest.raises(ConnectionLost, match=r"could not open its minimum of 2 connections: .*none") as caught:
            await pool.start()

        assert isinstance(caught.value, redis.ConnectionError)
        assert pool.stats().failed_total >= 1
        assert set(pool.stats().errors) <= {"ConnectionError", "FileNotFoundError"}


async def test_a_caller_waits_for_a_server_that_is_away_only_as_long_as_its_patience(
    tmp_path: Path, stalls: Stalls
) -> None:
    options: dict[str, Any] = {"reconnect_patience": 0.3, "timeout": 20.0}
    async with lending(f"unix://{tmp_path / 'none'}", max_connections=3, **options) as pool:
        began = time.monotonic()
        first = await asyncio.gather(*(pool.get_connection() for _ in range(50)), return_exceptions=True)
        took, again = time.monotonic() - began, time.monotonic()
        with pytest.raises(ConnectionLost):
            await pool.get_connection()

        assert {isinstance(error, ConnectionLost) for error in first} == {True}
        assert took > 0.25
        assert stalls.lasted(began, again) < 2.0
        # It has been away for long by now.
        assert stalls.lasted(again) < 1.5
        assert "The server has been away for" in str(first[-1])
        assert len({id(error) for error in first}) == 50


async def test_a_wait_that_runs_out_while_the_server_is_away_says_so(tmp_path: Path) -> None:
    options: dict[str, Any] = {"reconnect_patience": 5.0, "timeout": 0.2}
    async with lending(f"unix://{tmp_path / 'none'}", **options) as pool:
        with pytest.raises(
            PoolTimeout, match=r"The last attempt to open one failed: .* Check that the server runs"
        ) as got:
            await pool.get_connection()

    assert isinstance(got.value.__cause__, redis.ConnectionError)


@pytest.mark.parametrize("error", [LookupError("no such secret"), TypeError("wrong"), RuntimeError("loop")])
async def test_an_error_of_the_users_login_reaches_every_caller_and_holds_no_place(
    server: PrivateServer, raw: Raw, prefix: str, error: Exception
) -> None:
    failing = True

    async def log_in(connection: AbstractConnection) -> None:
        await connection.on_connect()
        if failing:
            raise error

    async with lending(server.url, max_connections=4, redis_connect_func=log_in, client_name=prefix) as pool:
        ends = await soon(asyncio.gather(*(pool.get_connection() for _ in range(20)), return_exceptions=True))

        assert {type(end) for end in ends} == {type(error)}

        async def none_left() -> bool:
            return pool.stats().opening == 0

        await until(none_left, "the other attempts have failed too")
        assert pool.stats().total == 0
        assert set(pool.stats().errors) == {type(error).__name__}
        await until_seen(raw, prefix, 0)
        failing = False
        got = await soon(pool.get_connection())
        assert await ask(got, "ECHO", "x") in {b"x", "x"}
        await pool.release(got)


class Wallet(CredentialProvider):
    """Credentials that cannot be had."""

    def get_credentials(self) -> Any:
        raise PermissionError("the vault is locked")


async def test_a_credential_provider_that_fails_is_named(server: PrivateServer) -> None:
    async with lending(server.url, credential_provider=Wallet(), max_connections=2, reconnect_patience=0.1) as pool:
        ends = await soon(asyncio.gather(*(pool.get_connection() for _ in range(5)), return_exceptions=True))

        assert all("the vault is locked" in str(end) for end in ends)
        assert (pool.stats().opening, pool.stats().total, pool.stats().waiting) == (0, 0, 0)


async def test_a_login_that_cancels_itself_is_a_failure_like_another(server: PrivateServer) -> None:
    attempts = 0

    async def log_in(connection: AbstractConnection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.on_connect()
        raise asyncio.CancelledError

    async with lending(server.url, max_connections=2, redis_connect_func=log_in, reconnect_patience=0.3) as pool:
        with pytest.raises(ConnectionLost, match="cancelled from inside"):
            await soon(pool.get_connection())

        assert attempts < 15
        assert pool.stats().opening <= 1


async def test_a_refused_login_is_not_tried_in_a_series(server: PrivateServer, tmp_path: Path) -> None:
    with FaultProxy(tmp_path, server.url) as way:
        url = way.url.replace("unix://", "unix://nobody:wrong@")
        async with lending(url, max_connections=8, min_connections=4, idle_timeout=60) as pool:
            with pytest.raises(CommandRefused, match="Check user and password"):
                await pool.get_connection()
            await asyncio.sleep(0.02)
            after_one = way.accepted

            await asyncio.sleep(0.5)
            assert way.accepted == after_one <= 8

            ends = await soon(asyncio.gather(*(pool.get_connection() for _ in range(100)), return_exceptions=True))
            assert {isinstance(end, redis.AuthenticationError) for end in ends} == {True}
            assert way.accepted <= after_one + 3


async def test_callers_who_ask_again_and_again_make_no_more_attempts(server: PrivateServer, tmp_path: Path) -> None:
    with FaultProxy(tmp_path, server.url) as way:
        way.refusing = True
        async with lending(way.url, max_connections=8, reconnect_patience=0.0) as pool:
            began = time.monotonic()
            while time.monotonic() - began < 0.8:
                with pytest.raises(ConnectionLost):
                    await pool.get_connection()

            # Full jitter below 20, 40, 80 ... 500 ms.
            assert way.accepted <= 16
            agrees(pool)


async def test_openings_that_hang_are_given_up_for_new_ones(tmp_path: Path, stalls: Stalls) -> None:
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=6, timeout=10.0) as pool:
        fake.handshake[b"HELLO"] = None
        callers = [asyncio.create_task(pool.get_connection()) for _ in range(6)]
        await fake.until(lambda it: it.opened == 6)
        await asyncio.sleep(0.5)

        # Whatever was sent so far is never answered.
        del fake.handshake[b"HELLO"]
        began = time.monotonic()
        ends = await soon(asyncio.gather(*callers, return_exceptions=True))

        assert stalls.lasted(began) < 2.0
        served = [end for end in ends if not isinstance(end, BaseException)]
        assert {type(end).__mro__[2] for end in ends if isinstance(end, BaseException)} <= {ConnectionLost}
        for connection in served:
            await pool.release(connection)
        connection = await soon(pool.get_connection())
        await pool.release(connection)

        async def opened() -> bool:
            return pool.stats().opening == 0

        await until(opened, "what was opened for those who are served is given up or open")


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (redis.AuthenticationError("WRONGPASS"), True),
        (redis.ResponseError("ERR DB index is out of range"), True),
        (TypeError("wrong argument"), True),
        (redis.ConnectionError("refused"), False),
        (redis.BusyLoadingError("LOADING"), False),
        (redis.TimeoutError("slow"), False),
        (ConnectionResetError("reset"), False),
        (redis.MaxConnectionsError("max number of clients reached"), False),
    ],
)
def test_waiting_helps_against_the_network_and_not_against_a_refusal(error: Exception, final: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert is_final(error) is final
