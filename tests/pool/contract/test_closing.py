"""Who closes a pool: a client closes the pool that it made or was given for keeps, and no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.pool.contract.subjects import Subject, counts

if TYPE_CHECKING:
    from headrace.server import PrivateServer


async def close(subject: Subject, client: Any) -> None:
    await subject.do(client.close if subject.threaded else client.aclose)


async def borrow_two(subject: Subject, pool: Any) -> tuple[Any, Any]:
    """Return one connection that is idle and one that is in use."""
    idle = await subject.do(pool.get_connection)
    used = await subject.do(pool.get_connection)
    await subject.do(pool.release, idle)
    return idle, used


async def test_a_client_leaves_a_pool_that_it_was_lent_open(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    client = subject.library.Redis(connection_pool=pool)
    idle, used = await borrow_two(subject, pool)

    await close(subject, client)

    assert idle.is_connected
    assert used.is_connected
    assert counts(pool) == (1, 1)
    await subject.do(pool.release, used)


async def test_a_client_closes_a_pool_that_it_was_given_for_keeps(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    client = subject.library.Redis.from_pool(pool)
    idle, used = await borrow_two(subject, pool)

    await close(subject, client)

    assert not idle.is_connected
    assert not used.is_connected


async def test_a_client_as_a_context_closes_a_pool_for_keeps(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    client = subject.library.Redis.from_pool(pool)
    idle, used = await borrow_two(subject, pool)

    if subject.threaded:
        with client:
            await subject.do(client.ping)
    else:
        async with client:
            await client.ping()

    assert not idle.is_connected
    assert not used.is_connected


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("chosen", [True, False])
async def test_a_closing_client_does_what_the_call_says(
    subject: Subject, place: PrivateServer, *, own: bool, chosen: bool
) -> None:
    if subject.threaded:
        pytest.skip("only the asyncio client has the option")
    pool = subject.pool_from(place.url)
    client = subject.client(pool)
    client.auto_close_connection_pool = own
    _, used = await borrow_two(subject, pool)

    await client.aclose(close_connection_pool=chosen)

    assert used.is_connected is not chosen
    if not chosen:
        await pool.release(used)


async def test_a_client_with_one_connection_gives_it_back(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    client = await subject.do(subject.client, pool, single_connection_client=True)
    if not subject.threaded:
        await client.initialize()
    mine = await subject.do(client.client_id)
    assert counts(pool) == (0, 1)
    assert await subject.do(client.client_id) == mine

    await close(subject, client)

    assert counts(pool) == (1, 0)
    other = subject.client(pool)
    assert await subject.do(other.client_id) == mine


async def test_callers_of_a_client_with_one_connection_take_turns(
    subject: Subject, place: PrivateServer, key: str
) -> None:
    pool = subject.pool_from(place.url, max_connections=2)
    client = await subject.do(subject.client, pool, single_connection_client=True)

    answers = await asyncio.gather(*(subject.do(client.incr, key) for _ in range(12)))

    assert sorted(answers) == list(range(1, 13))
    await close(subject, client)
    assert counts(pool)[1] == 0


async def test_two_clients_may_share_a_pool(subject: Subject, place: PrivateServer, key: str) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    writer, reader = subject.client(pool), subject.client(pool)
    await subject.do(writer.set, key, "shared")

    await close(subject, writer)

    assert await subject.do(reader.get, key) == b"shared"
