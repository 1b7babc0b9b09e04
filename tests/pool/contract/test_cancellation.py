"""A caller that is cancelled leaves nothing behind: no reply for the next one, no place, no turn in the line."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.live import until
from tests.pool.contract.subjects import DEADLINE, Subject, counts
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.raw import Raw


@pytest.fixture
def proxy(place: PrivateServer, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(tmp_path, place.url) as proxy:
        yield proxy


@pytest.fixture
def stalling(subject: Subject, proxy: FaultProxy) -> Any:
    """A pool of one connection whose replies can be kept back."""
    if subject.threaded:
        pytest.skip("a thread cannot be cancelled")
    return subject.pool_from(proxy.url, max_connections=1, timeout=DEADLINE)


async def blocked(peer: Raw) -> bool:
    return b"blocked_clients:1" in peer("INFO", "clients")


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_command_cancelled_before_its_reply_leaves_none_for_the_next(
    subject: Subject, stalling: Any, proxy: FaultProxy, key: str
) -> None:
    client = subject.client(stalling)
    await client.set(f"{key}-a", "wrong")
    await client.set(f"{key}-b", "right")
    stall = proxy.arm(lambda request: f"{key}-a".encode() in request, stall=True)
    task = subject.start(client.get, f"{key}-a")
    await stall.strikes()

    await cancelled(task)

    proxy.release(stall)
    assert counts(stalling)[1] == 0
    assert await client.get(f"{key}-b") == b"right"
    assert await client.ping() is True


async def test_a_pipeline_cancelled_before_its_replies_leaves_none_for_the_next(
    subject: Subject, stalling: Any, proxy: FaultProxy, key: str
) -> None:
    client = subject.client(stalling)
    pipe = client.pipeline()
    pipe.set(f"{key}-a", "wrong").get(f"{key}-a").get(f"{key}-a")
    stall = proxy.arm(lambda request: f"{key}-a".encode() in request, stall=True)
    task = subject.start(pipe.execute)
    await stall.strikes()

    await cancelled(task)

    proxy.release(stall)
    await pipe.reset()
    assert counts(stalling)[1] == 0
    assert await client.echo("right") == b"right"
    pipe.echo("again")
    assert await pipe.execute() == [b"again"]


async def test_a_blocking_call_that_is_cancelled_gives_its_place_back(
    subject: Subject, stalling: Any, peer: Raw, key: str
) -> None:
    client = subject.client(stalling)
    task = subject.start(client.blpop, [key], timeout=4)
    # It has been sent when the server counts it.
    await until(lambda: blocked(peer), "the server holds the call")

    await cancelled(task)

    assert counts(stalling)[1] == 0
    assert await client.ping() is True


async def test_a_waiter_that_is_cancelled_passes_its_turn(subject: Subject, stalling: Any) -> None:
    first = await stalling.get_connection()
    waiting = [subject.start(stalling.get_connection) for _ in range(3)]
    await asyncio.sleep(0.02)

    await cancelled(waiting[0])
    await stalling.release(first)

    served, _ = await asyncio.wait(waiting[1:], timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
    assert len(served) == 1
    await stalling.release(next(iter(served)).result())
    for task in waiting[1:]:
        if task not in served:
            await stalling.release(await task)
    assert counts(stalling)[1] == 0


async def test_a_waiter_cancelled_at_the_moment_of_its_turn_passes_it(subject: Subject, stalling: Any) -> None:
    if not subject.ours:
        pytest.skip("redis-py waits on asyncio.Condition, which loses the turn in Python 3.11")
    first = await stalling.get_connection()
    waiting = [asyncio.create_task(stalling.get_connection()) for _ in range(2)]
    await asyncio.sleep(0.02)

    # Released and cancelled in the same step of the loop.
    await stalling.release(first)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]

    assert await asyncio.wait_for(waiting[1], DEADLINE) is first
    await stalling.release(first)
    assert counts(stalling)[1] == 0


async def test_an_opening_that_is_cancelled_holds_no_place(subject: Subject, proxy: FaultProxy) -> None:
    if subject.threaded:
        pytest.skip("a thread cannot be cancelled")
    pool = subject.pool_from(proxy.url, max_connections=1, timeout=DEADLINE, client_name="opening")
    stall = proxy.arm(lambda request: b"opening" in request or b"HELLO" in request, stall=True)
    task = subject.start(pool.get_connection)
    await stall.strikes()

    await cancelled(task)

    proxy.release(stall)
    assert counts(pool)[1] == 0
    connection = await asyncio.wait_for(pool.get_connection(), DEADLINE)
    await pool.release(connection)
    assert counts(pool) == (1, 0)


async def test_a_timeout_around_a_command_leaves_the_pool_whole(
    subject: Subject, stalling: Any, proxy: FaultProxy
) -> None:
    client = subject.client(stalling)
    await client.ping()
    stall = proxy.arm(lambda request: b"PING" in request, stall=True)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.ping()

    assert stall.struck.is_set()
    proxy.release(stall)
    assert await client.echo("right") == b"right"
    assert counts(stalling) == (1, 0)


async def test_a_socket_timeout_leaves_no_reply_for_the_next(subject: Subject, proxy: FaultProxy) -> None:
    pool = subject.pool_from(proxy.url, max_connections=1, socket_timeout=0.2)
    client = subject.client(pool)
    await subject.do(client.ping)
    stall = proxy.arm(lambda request: b"wrong" in request, stall=True)

    with pytest.raises(redis.TimeoutError):
        await subject.do(client.echo, "wrong")

    proxy.release(stall)
    assert await subject.do(client.echo, "right") == b"right"
    assert counts(pool) == (1, 0)
