"""A forked child neither shares nor closes the sockets of its parent, and both go on."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from headrace.census import Census
from headrace.pool.client_pool import ConnectionPool
from tests.support.pools import ask, descriptors, lending, seen, until_seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.server import PrivateServer
    from tests.support.raw import Raw


#: A child that takes longer ends itself, seconds.
DEADLINE = 15.0


async def identity(pool: ConnectionPool) -> int:
    connection = await pool.get_connection()
    try:
        return int(await ask(connection, "CLIENT", "ID"))
    finally:
        await pool.release(connection)


def fork(child: Callable[[], Any]) -> str:
    """Run a function in a forked child and return the text of what it returned or raised."""
    reading, writing = os.pipe()
    # Why: the watchdog of a child that forks again would never let go of its lock in the grandchild.
    faulthandler.cancel_dump_traceback_later()
    with warnings.catch_warnings():
        # Python warns of forks of processes with threads; these threads are the test's own.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(DEADLINE, exit=True)
        try:
            answer = str(child())
        except BaseException:  # noqa: BLE001 - the parent shows it
            answer = traceback.format_exc()
        os.write(writing, answer.encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


async def test_a_child_opens_connections_of_its_own_and_the_parent_keeps_its(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    async with lending(server.url, max_connections=3, client_name=prefix) as pool:
        held = await pool.get_connection()
        before = int(await ask(held, "CLIENT", "ID"))
        idle = await identity(pool)
        await held.send_command("ECHO", "for the parent")

        async def in_child() -> tuple[int, int, int]:
            number = await identity(pool)
            stats = pool.stats()
            await pool.aclose()
            return number, stats.total, stats.active

        number, total, active = map(int, fork(lambda: asyncio.run(in_child())).strip("()").split(","))

        assert number not in {before, idle}
        assert (total, active) == (1, 0)
        # Neither did the child read the reply, nor did its end close the socket.
        assert await held.read_response() in {b"for the parent", "for the parent"}
        assert int(await ask(held, "CLIENT", "ID")) == before
        await pool.release(held)
        assert {await identity(pool), idle} <= {before, idle}
        await until_seen(raw, prefix, 2)


async def test_a_child_that_ends_the_parents_business_harms_nobody(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    census = Census()
    pool = ConnectionPool.from_url(server.url, client_name=prefix, census=census, max_connections=4)
    held = await pool.get_connection()
    other = await pool.get_connection()
    await pool.release(other)

    async def in_child() -> str:
        # As a `finally` of the parent's code does, that the child runs too.
        await pool.release(held)
        await held.disconnect(nowait=True)
        await pool.disconnect()
        await pool.aclose()
        return f"{pool.stats().total} {pool.stats().active}"

    assert fork(lambda: asyncio.run(in_child())) == "0 0"

    assert await ask(held, "ECHO", "mine") in {b"mine", "mine"}
    assert seen(raw, prefix) == 2
    assert len(census.entries()) == 2
    await pool.release(held)
    await pool.aclose()
    assert census.entries() == []


async def test_parent_and_children_use_the_pool_at_the_same_time(server: PrivateServer, raw: Raw, prefix: str) -> None:
    async with lending(server.url, max_connections=2, min_connections=2, client_name=prefix) as pool:
        await pool.start()
        mine = {await identity(pool) for _ in range(5)}

        async def in_child() -> list[int]:
            found = list(await asyncio.gather(*(identity(pool) for _ in range(20))))
            await pool.aclose()
            return sorted(set(found))

        theirs = [set(map(int, fork(lambda: asyncio.run(in_child())).strip("[]").split(","))) for _ in range(3)]

        assert all(len(numbers) <= 2 and not numbers & mine for numbers in theirs)
        assert {await identity(pool) for _ in range(5)} <= mine
        await until_seen(raw, prefix, 2)


async def test_a_child_of_a_child_begins_anew_too_and_no_file_is_left_open(server: PrivateServer, prefix: str) -> None:
    async with lending(server.url, client_name=prefix) as pool:
        mine = await identity(pool)
        before = descriptors()

        def in_child() -> tuple[int, str]:
            async def first() -> int:
                number = await identity(pool)
                grandchild = fork(lambda: asyncio.run(identity(pool)))
                assert int(grandchild) not in {mine, number}
                again = await identity(pool)
                await pool.aclose()
                return int(again == number)

            return asyncio.run(first()), ""

        assert fork(in_child) == "(1, '')"
        assert await identity(pool) == mine
        assert descriptors() == before


@pytest.mark.parametrize("waiting", [1, 20])
async def test_those_who_waited_in_the_parent_are_served_there(server: PrivateServer, waiting: int) -> None:
    async with lending(server.url, max_connections=1) as pool:
        held = await pool.get_connection()
        callers = [asyncio.create_task(identity(pool)) for _ in range(waiting)]
        await asyncio.sleep(0.01)

        waited = fork(lambda: pool.stats().waiting)
        await pool.release(held)

        assert waited == "0"
        assert len(set(await asyncio.gather(*callers))) == 1
