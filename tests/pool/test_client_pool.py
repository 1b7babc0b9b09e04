"""The asyncio pool: who gets a connection, what ends a wait, and what a close, a resize or a cancel leaves behind."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.auth.token import SimpleToken

from headrace.errors import OptionError, PoolClosed, PoolTimeout, UsageError
from headrace.pool.client_pool import LONGEST_WAIT, ConnectionPool
from tests.support.pools import agrees, ask, borrow, give_back, lending, seen, soon, until_seen, waiting
from tests.support.scripted import scripted

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.raw import Raw


# Taking and giving back


async def test_there_is_no_endless_wait(server: PrivateServer) -> None:
    async with lending(server.url, timeout=None) as pool:
        assert pool.timeout == LONGEST_WAIT == 600.0

    with pytest.raises(OptionError, match="timeout=601"):
        ConnectionPool.from_url(server.url, timeout=601)


async def test_a_wait_that_ran_out_names_the_holders_what_for_and_where(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=2, min_connections=2, timeout=0.05, name="shop") as pool:
        # Both are open before anybody waits, since a busy machine may open one in more than the wait.
        await pool.start()
        view = pool.lane("user", owner="mail-3", purpose="reserve")
        first, second = await view.get_connection(), await pool.get_connection()

        with pytest.raises(PoolTimeout) as caught:
            await pool.get_connection()

        text = str(caught.value)
        assert text.startswith("pool 'shop', lane 'user' gave no connection within 0.05")
        assert "2 of 2 in use, 0 waiting ahead" in text
        assert "s by 'mail-3' (reserve) at pool/test_client_pool.py:" in text
        assert "test_a_wait_that_ran_out_names_the_holders_what_for_and_where" in text
        assert "Raise REDIS_MAX_CONNECTIONS" in text
        assert {getattr(holder, "owner", "") for holder in caught.value.holders} >= {"mail-3"}
        assert pool.stats().lanes["user"].timeouts_total == pool.stats().timeouts_total == 1
        await give_back(pool, [first, second])


async def test_waiters_are_served_in_the_order_of_their_arrival(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=2) as pool:
        served: list[int] = []
        held = await borrow(pool, 2)

        async def use(number: int) -> None:
            connection = await pool.get_connection()
            served.append(number)
            await asyncio.sleep(0)
            await pool.release(connection)

        users = [asyncio.create_task(use(number)) for number in range(50)]
        await waiting(pool, 50)
        await give_back(pool, held)
        await soon(asyncio.gather(*users))

        assert served == list(range(50))


async def test_a_cancelled_waiter_passes_its_turn(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=1) as pool:
        held = await pool.get_connection()
        first, second = (asyncio.create_task(pool.get_connection()) for _ in range(2))
        await waiting(pool, 2)

        # Handed over and cancelled in the same turn of the loop.
        await pool.release(held)
        first.cancel()
        got = await soon(second)

        assert first.cancelled() or (await asyncio.wait({first}))[0]
        assert got is held
        await pool.release(got)
        assert pool.stats().active == 0


async def test_thousands_cancelled_at_once_in_any_order_leave_nothing(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=2, timeout=60) as pool:
        held = await borrow(pool, 2)
        tasks = [asyncio.create_task(pool.get_connection()) for _ in range(5_000)]
        await waiting(pool, 5_000)

        began = time.process_time()
        for task in tasks[::2] + tasks[1::2][::-1]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        spent = time.process_time() - began

        # Looking through the line for each would take 5,000 x 2,500 steps.
        assert spent < 0.6
        assert pool.stats().waiting == 0
        await give_back(pool, held)
        assert pool.stats().active == 0


async def test_thousands_of_timeouts_at_once_are_told_in_time(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=5, timeout=0.3) as pool:
        held = await borrow(pool, 5)

        began = time.process_time()
        told = await asyncio.gather(*(pool.get_connection() for _ in range(3_000)), return_exceptions=True)

        assert {type(error).__mro__[2] for error in told} == {PoolTimeout}
        assert time.process_time() - began < 1.0
        assert pool.stats().timeouts_total == 3_000
        assert pool.stats().waiting_highest == 3_000
        await give_back(pool, held)


async def test_what_is_not_lent_cannot_be_released(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=2) as pool, lending(server.url) as other:
        connection, foreign = await pool.get_connection(), await other.get_connection()
        await pool.release(connection)
        before = pool.stats()

        for stranger in (connection, foreign):
            with pytest.raises(UsageError, match="that this pool has not leased"):
                await pool.release(stranger)

        after = pool.stats()
        assert (after.idle, after.active, after.calls_total) == (before.idle, before.active, before.calls_total)
        await other.release(foreign)


async def test_a_release_that_is_cancelled_while_logging_in_again_gives_the_place_back(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=1, check_timeout=5) as pool:
        fake.answer = lambda command: None if command[0] == b"AUTH" else b"+OK\r\n"
        connection = await pool.get_connection()
        await pool.re_auth_callback(SimpleToken("token", time.time() * 1000 + 1e6, time.time() * 1000, {"oid": "me"}))

        releasing = asyncio.create_task(pool.release(connection))
        await fake.until(lambda it: any(command[0] == b"AUTH" for command in it.commands))
        releasing.cancel()
        await asyncio.wait({releasing})

        assert releasing.cancelled()
        assert pool.stats().active == 0
        await pool.release(await soon(pool.get_connection()))


async def test_a_connection_that_its_holder_broke_is_replaced(server: PrivateServer, raw: Raw, prefix: str) -> None:
    async with lending(server.url, max_connections=1, client_name=prefix) as pool:
        connection = await pool.get_connection()

        await connection.disconnect()
        await pool.release(connection)
        again = await soon(pool.get_connection())

        assert again is not connection
        assert await ask(again, "PING") in {b"PONG", "PONG"}
        assert seen(raw, prefix) == 1
        await pool.release(again)


# Closing


async def test_whoever_waits_or_comes_during_a_close_is_told(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s") as fake, lending(fake.url, max_connections=2, check_after=0) as pool:
        held = await pool.get_connection()
        await pool.release(held)
        fake.handshake[b"PING"] = None
        # One is being checked, one waits for an opening that hangs, one comes while the pool closes.
        fake.handshake[b"HELLO"] = None
        callers = [asyncio.create_task(pool.get_connection()) for _ in range(3)]
        await waiting(pool, 2)

        closing = asyncio.create_task(pool.aclose())
        await asyncio.sleep(0)
        late = asyncio.create_task(pool.get_connection())
        ends = await soon(asyncio.gather(*callers, late, return_exceptions=True))
        await soon(closing)

        assert [isinstance(end, PoolClosed) for end in ends] == [True] * 4
        assert (pool.stats().total, pool.stats().opening, pool.stats().waiting) == (0, 0, 0)


async def test_a_close_gives_back_the_places_of_openings_that_had_not_begun(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=1) as pool:
        caller = asyncio.create_task(pool.get_connection())
        await asyncio.sleep(0)
        assert pool.stats().opening == 1

        await pool.aclose()
        with pytest.raises(PoolClosed):
            await caller
        await pool.start()

        assert pool.stats().opening == 0
        await pool.release(await soon(pool.get_connection()))


async def test_what_is_released_after_a_close_is_gone_and_its_place_is_free(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=1) as pool:
        held = await pool.get_connection()
        await pool.aclose()
        assert not held.is_connected
        await pool.start()

        got = await soon(pool.get_connection())
        await pool.release(held)

        assert got is not held
        assert pool.stats().active == 1
        await pool.release(got)


async def test_a_holder_cannot_open_anew_what_the_pool_has_closed(server: PrivateServer, raw: Raw, prefix: str) -> None:
    async with lending(server.url, max_connections=1, client_name=prefix) as pool:
        held = await pool.get_connection()
        await pool.aclose()

        # A command of redis-py opens a closed connection by itself.
        with pytest.raises(PoolClosed):
            await ask(held, "PING")

        await until_seen(raw, prefix, 0)
        await pool.release(held)


async def test_closes_and_starts_at_the_same_time_end_in_the_last_state(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    async with lending(server.url, max_connections=4, min_connections=3, client_name=prefix) as pool:
        await pool.start()

        await soon(asyncio.gather(pool.aclose(), pool.aclose(), pool.start()))

        assert pool.stats().idle == 3
        await until_seen(raw, prefix, 3)
        await soon(asyncio.gather(pool.start(), pool.aclose()))
        await until_seen(raw, prefix, 0)
        assert pool.stats().total == 0
    await until_seen(raw, prefix, 0)


async def test_a_view_does_not_close_the_pool_and_ends_with_it(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=3, lanes={"control": 1, "user": 2}) as pool:
        view = pool.lane("control")

        async with view:
            await view.release(await view.get_connection())
        await pool.release(await pool.get_connection())
        await pool.aclose()

        with pytest.raises(PoolClosed, match="is closed"):
            await view.get_connection()


async def test_a_pool_that_is_dropped_unclosed_closes_its_connections_with_one_warning(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    pool = ConnectionPool.from_url(server.url, client_name=prefix, max_connections=5, min_connections=5)
    await pool.start()
    assert seen(raw, prefix) == 5

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        gc.collect()
        await until_seen(raw, prefix, 0)
        gc.collect()

    assert [str(warning.message) for warning in caught if "prefix" not in str(warning.message)] == [
        "pool 'pool' was dropped with 5 connections open. Call `await pool.aclose()`."
    ]


# Limits that change


async def test_a_pool_that_grows_serves_those_who_wait(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=1) as pool:
        held = await borrow(pool, 1)
        callers = [asyncio.create_task(pool.get_connection()) for _ in range(3)]
        await waiting(pool, 3)

        await pool.resize(maximum=4)
        got = await soon(asyncio.gather(*callers))

        assert pool.max_connections == 4
        await give_back(pool, held + got)


async def test_a_pool_that_shrinks_takes_nothing_from_its_holders(server: PrivateServer, raw: Raw, prefix: str) -> None:
    async with lending(server.url, max_connections=6, client_name=prefix) as pool:
        held = await borrow(pool, 6)
        await give_back(pool, held[4:])

        await pool.resize(maximum=2)
        assert (pool.stats().active, pool.stats().idle) == (4, 0)
        assert [await ask(connection, "ECHO", "x") for connection in held[:4]] == [b"x"] * 4
        await give_back(pool, held[:4])

        await until_seen(raw, prefix, 2)
        assert (pool.stats().total, pool.stats().maximum) == (2, 2)
        agrees(pool)


async def test_the_maximum_may_be_set_as_an_attribute(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=3, min_connections=2) as pool:
        pool.max_connections = 1

        assert (pool.max_connections, pool.min_connections, pool.stats().lanes["user"].share) == (1, 1, 1)
        with pytest.raises(OptionError, match="max_connections=0"):
            pool.max_connections = 0
        assert pool.max_connections == 1


async def test_who_waits_in_a_lane_that_is_left_out_is_told_at_once(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=3, lanes={"jobs": 1, "user": 2}) as pool:
        jobs = pool.lane("jobs")
        held = await jobs.get_connection()
        caller = asyncio.create_task(jobs.get_connection())
        await waiting(pool, 1)

        await pool.resize(maximum=3, lanes={"user": 3})

        with pytest.raises(UsageError, match="lane 'jobs' has no share"):
            await soon(caller)
        with pytest.raises(UsageError, match="lane 'jobs' has no share"):
            await soon(jobs.get_connection())
        await jobs.release(held)
        await give_back(pool, await borrow(pool, 3))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"maximum": 0}, "max_connections=0"),
        ({"minimum": 7}, "min_connections=7"),
        ({"lanes": {"user": 5}}, "add up to max_connections=6"),
        ({"lanes": {"other": 6}}, "expected shares of"),
        ({"maximum": 1}, "at least 2, one for each lane"),
    ],
)
async def test_a_wrong_resize_is_refused_and_changes_nothing(
    server: PrivateServer, change: dict[str, Any], text: str
) -> None:
    async with lending(server.url, max_connections=6, min_connections=1, lanes={"jobs": 2, "user": 4}) as pool:
        with pytest.raises(OptionError, match=text):
            await pool.resize(**change)

        assert (pool.max_connections, pool.min_connections) == (6, 1)
        assert {name: lane.share for name, lane in pool.stats().lanes.items()} == {"jobs": 2, "user": 4}


# What goes wrong outside


async def test_a_listener_that_fails_breaks_no_release(server: PrivateServer) -> None:
    def fail(event: str, facts: dict[str, object]) -> None:
        raise LookupError(f"{event} {facts}")

    async with lending(server.url, max_connections=1, exhausted_after=0.01, on_event=fail) as pool:
        held = await pool.get_connection()
        caller = asyncio.create_task(pool.get_connection())
        await waiting(pool, 1)
        await asyncio.sleep(0.05)

        await pool.release(held)

        await pool.release(await soon(caller))
        assert pool.stats().active == 0


async def test_a_client_that_is_cancelled_in_the_middle_of_a_command_leaves_no_reply_to_the_next(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    async with lending(server.url, max_connections=1, client_name=prefix) as pool:
        client = redis.asyncio.Redis(connection_pool=pool)
        blocked = asyncio.ensure_future(client.blpop([f"{prefix}:nothing"], timeout=5))
        await until_seen(raw, prefix, 1)
        await asyncio.sleep(0.02)

        blocked.cancel()
        await asyncio.wait({blocked})

        assert await soon(client.echo("mine")) in {b"mine", "mine"}
        await until_seen(raw, prefix, 1)


async def test_what_is_being_opened_counts_in_the_lane_that_waits_for_it(server: PrivateServer) -> None:
    pool = ConnectionPool.from_url(server.url, max_connections=6, lanes={"jobs": 2, "user": 4})
    jobs, user = pool.lane("jobs"), pool.lane("user")
    taking = [asyncio.create_task(lane.get_connection()) for lane in (jobs, jobs, user)]
    await asyncio.sleep(0)

    stats = pool.stats()

    assert stats.opening == 3
    assert {name: lane.opening for name, lane in stats.lanes.items()} == {"jobs": 2, "user": 1}
    for connection in await asyncio.gather(*taking):
        await pool.release(connection)
    await pool.aclose()
