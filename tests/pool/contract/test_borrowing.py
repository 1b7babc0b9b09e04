"""Borrowing and giving back: creation, reuse, the maximum, waiting, disconnecting, and what a borrower may rely on."""

from __future__ import annotations

import asyncio
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import redis

from headrace.errors import ConnectionLost, PoolClosed, PoolTimeout
from tests.live import until
from tests.pool.contract.subjects import DEADLINE, Subject, counts

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.support.raw import Raw


def kept(base: Any) -> Any:
    """Return a user's own connection class, which takes an argument that redis-py's do not know."""

    class Kept(base):  # type: ignore[misc]  # the base is a parameter
        def __init__(self, *, colour: str, **options: Any) -> None:
            super().__init__(**options)
            self.colour = colour

    return Kept


async def ping(subject: Subject, connection: Any) -> Any:
    await subject.do(connection.send_command, "PING")
    return await subject.do(connection.read_response)


def skip_what_redis_py_lacks(subject: Subject, protocol: int) -> None:
    if protocol == 3 and not subject.ours:
        pytest.skip("redis-py does not look at a connection that may get maintenance notifications, as all of RESP3")


async def test_unknown_arguments_reach_the_connection_class(subject: Subject, place: PrivateServer) -> None:
    own_class = kept(subject.connection_class())
    pool = subject.pool(connection_class=own_class, host="127.0.0.1", port=place.port, colour="red", db=2)

    connection = await subject.do(pool.get_connection)

    assert isinstance(connection, own_class)
    assert (connection.colour, connection.db) == ("red", 2)
    await subject.do(pool.release, connection)


async def test_two_borrowers_get_two_connections(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)

    first = await subject.do(pool.get_connection)
    second = await subject.do(pool.get_connection)

    assert first is not second
    assert counts(pool) == (0, 2)
    await subject.do(pool.release, first)
    await subject.do(pool.release, second)
    assert counts(pool) == (2, 0)


async def test_a_borrowed_connection_is_connected(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)

    connection = await subject.do(pool.get_connection)

    assert connection.is_connected
    assert await ping(subject, connection) == b"PONG"
    await subject.do(pool.release, connection)


async def test_a_connection_given_back_is_the_next_one_lent(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    first = await subject.do(pool.get_connection)
    await subject.do(pool.release, first)

    second = await subject.do(pool.get_connection)

    assert second is first
    await subject.do(pool.release, second)


async def test_a_command_name_may_still_be_given(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        connection = await subject.do(pool.get_connection, "GET", "key")

    assert await ping(subject, connection) == b"PONG"
    await subject.do(pool.release, connection)


async def test_a_borrower_beyond_the_maximum_waits_for_the_next_release(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, max_connections=1, timeout=DEADLINE)
    first = await subject.do(pool.get_connection)
    waiter = subject.start(pool.get_connection)
    await asyncio.sleep(0.05)
    assert not waiter.done()

    await subject.do(pool.release, first)

    assert await waiter is first
    await subject.do(pool.release, first)


async def test_a_wait_ends_with_an_error_after_the_timeout(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, max_connections=1, timeout=0.1)
    first = await subject.do(pool.get_connection)
    started = time.monotonic()

    with pytest.raises(redis.ConnectionError) as caught:
        await subject.do(pool.get_connection)

    assert time.monotonic() - started >= 0.09
    assert isinstance(caught.value, PoolTimeout) is subject.ours
    # redis-py reads these of every error of its own.
    assert repr(caught.value).startswith("network:")
    assert caught.value.status_code is None
    await subject.do(pool.release, first)
    assert await subject.do(pool.get_connection) is first
    await subject.do(pool.release, first)


async def test_the_timeout_may_stand_in_the_url(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(f"{place.url}?timeout=0.05&max_connections=1")
    first = await subject.do(pool.get_connection)

    with pytest.raises(redis.ConnectionError):
        await subject.do(pool.get_connection)

    assert (pool.timeout, pool.max_connections) == (0.05, 1)
    await subject.do(pool.release, first)


async def test_waiters_are_served_in_the_order_of_their_arrival(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, max_connections=1, timeout=DEADLINE)
    served: list[int] = []
    first = await subject.do(pool.get_connection)

    async def borrow(number: int) -> None:
        connection = await subject.do(pool.get_connection)
        served.append(number)
        await subject.do(pool.release, connection)

    waiters = []
    for number in range(8):
        waiters.append(asyncio.create_task(borrow(number)))
        await asyncio.sleep(0.01)
    await subject.do(pool.release, first)
    await asyncio.gather(*waiters)

    assert sorted(served) == list(range(8))
    if subject.ours:
        assert served == list(range(8))


async def test_disconnect_ends_idle_and_borrowed_connections(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    idle = await subject.do(pool.get_connection)
    borrowed = await subject.do(pool.get_connection)
    await subject.do(pool.release, idle)

    await subject.do(pool.disconnect)

    assert not idle.is_connected
    assert not borrowed.is_connected
    await subject.do(pool.release, borrowed)
    again = await subject.do(pool.get_connection)
    assert await ping(subject, again) == b"PONG"
    await subject.do(pool.release, again)


async def test_disconnect_can_spare_borrowed_connections(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    idle = await subject.do(pool.get_connection)
    borrowed = await subject.do(pool.get_connection)
    await subject.do(pool.release, idle)

    await subject.do(pool.disconnect, inuse_connections=False)

    assert not idle.is_connected
    assert await ping(subject, borrowed) == b"PONG"
    await subject.do(pool.release, borrowed)


async def test_a_connection_marked_for_reconnect_is_not_lent_as_it_is(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    client = subject.client(pool)
    before = await subject.do(client.client_id)
    connection = await subject.do(pool.get_connection)

    connection.mark_for_reconnect()
    await subject.do(pool.release, connection)

    assert await subject.do(client.client_id) != before


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_socket_closed_by_the_server_is_replaced_at_borrow(
    subject: Subject, place: PrivateServer, peer: Raw, protocol: int
) -> None:
    skip_what_redis_py_lacks(subject, protocol)
    pool = subject.pool_from(place.url, max_connections=1, protocol=protocol)
    client = subject.client(pool)
    before = await subject.do(client.client_id)

    assert peer("CLIENT", "KILL", "ID", before) == 1
    # An event loop learns of it when it next looks.
    await asyncio.sleep(0.02)
    connection = await subject.do(pool.get_connection)

    assert await ping(subject, connection) == b"PONG"
    await subject.do(pool.release, connection)
    assert await subject.do(client.client_id) != before


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_reply_left_unread_never_reaches_the_next_borrower(
    subject: Subject, place: PrivateServer, key: str, protocol: int
) -> None:
    skip_what_redis_py_lacks(subject, protocol)
    pool = subject.pool_from(place.url, max_connections=1, protocol=protocol)
    client = subject.client(pool)
    await subject.do(client.set, key, "right")
    careless = await subject.do(pool.get_connection)
    await subject.do(careless.send_command, "ECHO", "wrong")
    # The reply is there before the connection is given back, as it is when a caller was cancelled.
    await asyncio.sleep(0.02)
    await subject.do(pool.release, careless)

    answer = await subject.do(client.get, key)

    assert answer == b"right"


async def test_a_failed_opening_gives_its_place_back(subject: Subject) -> None:
    options = {"reconnect_patience": 0.1} if subject.ours else {}
    pool = subject.pool(host="127.0.0.1", port=1, max_connections=1, **options)

    for _ in range(3):
        with pytest.raises(redis.ConnectionError) as caught:
            await subject.do(pool.get_connection)
        assert isinstance(caught.value, ConnectionLost) is subject.ours

    assert counts(pool)[1] == 0


async def test_a_wrong_database_is_refused_and_holds_no_place(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(f"redis://127.0.0.1:{place.port}/9999", max_connections=1)
    client = subject.client(pool)

    for _ in range(2):
        with pytest.raises(redis.ResponseError, match="DB index"):
            await subject.do(client.ping)

    assert counts(pool)[1] == 0


async def test_closing_ends_every_connection(subject: Subject, place: PrivateServer, peer: Raw, key: str) -> None:
    pool = subject.pool_from(place.url, client_name=key)
    first = await subject.do(pool.get_connection)
    second = await subject.do(pool.get_connection)
    await subject.do(pool.release, first)

    await subject.close(pool)

    assert not first.is_connected
    assert not second.is_connected

    async def gone() -> bool:
        return key.encode() not in peer("CLIENT", "LIST")

    await until(gone, "the server sees the connections end")


async def test_the_pool_is_a_context_that_closes_it(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)

    if subject.threaded:
        with pool as entered:
            connection = await subject.do(pool.get_connection)
            await subject.do(pool.release, connection)
    else:
        async with pool as entered:
            connection = await subject.do(pool.get_connection)
            await subject.do(pool.release, connection)

    assert entered is pool
    assert not connection.is_connected


async def test_a_closed_pool_of_ours_refuses_where_theirs_opens_anew(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url)
    await subject.close(pool)

    if subject.ours:
        with pytest.raises(redis.ConnectionError) as caught:
            await subject.do(pool.get_connection)
        assert isinstance(caught.value, PoolClosed)
    else:
        connection = await subject.do(pool.get_connection)
        assert await ping(subject, connection) == b"PONG"
        await subject.do(pool.release, connection)


@pytest.mark.parametrize("maximum", [-1, "many", 2.5])
def test_a_wrong_maximum_is_refused(subject: Subject, maximum: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        subject.pool_class(max_connections=maximum)


async def test_the_pool_says_how_it_encodes(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, encoding="latin-1", encoding_errors="replace", decode_responses=True)

    encoder = pool.get_encoder()

    assert (encoder.encoding, encoder.encoding_errors, encoder.decode_responses) == ("latin-1", "replace", True)
    assert encoder.encode("é") == b"\xe9"


@pytest.mark.parametrize("protocol", [2, 3])
async def test_the_pool_says_which_protocol_it_speaks(subject: Subject, place: PrivateServer, protocol: int) -> None:
    pool = subject.pool_from(place.url, protocol=protocol)

    connection = await subject.do(pool.get_connection)

    assert pool.get_protocol() == connection.protocol == protocol
    await subject.do(pool.release, connection)
