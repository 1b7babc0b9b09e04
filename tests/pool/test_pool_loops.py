"""A pool belongs to one event loop: another is refused, and a close lets it begin anew elsewhere."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import PoolClosed, UsageError
from headrace.pool import loops
from headrace.pool.client_pool import ConnectionPool
from tests.support.pools import ask, seen

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from headrace.server import PrivateServer
    from tests.support.raw import Raw


async def use(pool: ConnectionPool) -> Any:
    connection = await pool.get_connection()
    try:
        return await ask(connection, "ECHO", "here")
    finally:
        await pool.release(connection)


def run_in_another_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a loop of another thread, while this one stands."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(asyncio.run(work))
        except Exception as error:  # noqa: BLE001 - it is looked at by the test
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10.0)
    return found[0]


async def test_another_loop_is_refused(server: PrivateServer, raw: Raw, prefix: str) -> None:
    pool = ConnectionPool.from_url(server.url, client_name=prefix, name="shop")
    await use(pool)

    taken = run_in_another_loop(use(pool))
    started = run_in_another_loop(pool.start())
    closed = run_in_another_loop(pool.aclose())

    for refusal in (taken, started, closed):
        assert isinstance(refusal, UsageError)
        assert "The pool 'shop' belongs to " in str(refusal)
    assert "await pool.aclose()` there, and start it here" in str(taken)
    assert await use(pool) in {b"here", "here"}
    assert seen(raw, prefix) == 1
    await pool.aclose()


def test_a_pool_that_was_closed_begins_anew_in_another_loop(server: PrivateServer, raw: Raw, prefix: str) -> None:
    pool = ConnectionPool.from_url(server.url, client_name=prefix, min_connections=2)

    async def once() -> None:
        await pool.start()
        assert await use(pool) in {b"here", "here"}
        assert seen(raw, prefix) == 2
        await pool.aclose()
        with pytest.raises(PoolClosed):
            await use(pool)

    for _ in range(3):
        asyncio.run(once())

    assert pool.stats().opened_total == pool.stats().closed_total == 6


def test_a_pool_whose_loop_ended_before_it_was_closed_hands_no_old_socket_on(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    pool = ConnectionPool.from_url(server.url, client_name=prefix, max_connections=2)
    left: list[Any] = []

    async def leave() -> None:
        left.append(await pool.get_connection())
        await use(pool)

    async def go_on() -> None:
        with pytest.raises(UsageError, match="here, since that loop is closed"):
            await use(pool)
        await pool.aclose()
        await pool.start()
        got = [await pool.get_connection() for _ in range(2)]
        assert left[0] not in got
        await pool.release(left[0])
        for connection in got:
            assert await ask(connection, "ECHO", "here") in {b"here", "here"}
            await pool.release(connection)
        assert seen(raw, prefix) == 2
        await pool.aclose()

    with warnings.catch_warnings():
        # The transports of the loop that was left are found by the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(leave())
        asyncio.run(go_on())
        left.clear()
        gc.collect()

    assert seen(raw, prefix) == 0
    assert pool.stats().total == 0


def test_the_clock_of_a_loop_ends_with_it(server: PrivateServer) -> None:
    async def once() -> None:
        pool = ConnectionPool.from_url(server.url)
        await use(pool)
        await pool.aclose()

    for _ in range(5):
        asyncio.run(once())

    # That of the last loop goes when the next one makes a clock.
    assert len(loops._clocks) <= 1


UNCLOSED = """
import asyncio, sys
from headrace.pool import ConnectionPool

async def main():
    pool = ConnectionPool.from_url(sys.argv[1], min_connections=4, reconnect_patience=5)
    if sys.argv[2] == "idle":
        await pool.start()
    held = asyncio.create_task(pool.get_connection())
    await asyncio.sleep(0)
    if sys.argv[2] == "held":
        await held
    print("done")

asyncio.run(main())
"""


@pytest.mark.parametrize("state", ["idle", "opening", "held", "away"])
def test_a_program_that_ends_without_closing_its_pool_ends_quietly(server: PrivateServer, state: str) -> None:
    url = "redis://127.0.0.1:1" if state == "away" else server.url

    ended = subprocess.run(
        [sys.executable, "-c", UNCLOSED, url, state], capture_output=True, text=True, timeout=20, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
