"""Errors that a server sends reach the caller as redis-py's classes, and leave the pool whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff

from tests.pool.contract.subjects import Subject, counts
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer

LOADING = ("DEBUG", "ERROR", "LOADING not real")
SOME = {
    "READONLY not real": redis.ReadOnlyError,
    "OOM not real": redis.OutOfMemoryError,
    "ERR Client sent AUTH, but no password is set": redis.AuthenticationError,
    "ERR invalid password": redis.AuthenticationError,
    "NOAUTH not real": redis.AuthenticationError,
    "NOPERM not real": redis.exceptions.NoPermissionError,
    "EXECABORT not real": redis.exceptions.ExecAbortError,
    "ERR max number of clients reached": redis.ConnectionError,
    "ERR not real": redis.ResponseError,
}


def drained(pool: Any) -> bool:
    """Whether everything was given back."""
    return counts(pool)[1] == 0


@pytest.mark.parametrize("text", list(SOME))
async def test_an_error_reply_has_redis_pys_class(subject: Subject, place: PrivateServer, text: str) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    client = subject.client(pool)

    with pytest.raises(SOME[text]):
        await subject.do(client.execute_command, "DEBUG", "ERROR", text)

    assert drained(pool)
    assert await subject.do(client.ping) is True


async def test_a_loading_server_ends_the_connection(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    client = subject.client(pool)
    before = await subject.do(client.client_id)

    with pytest.raises(redis.BusyLoadingError):
        await subject.do(client.execute_command, *LOADING)

    assert drained(pool)
    assert await subject.do(client.client_id) != before


async def test_a_loading_server_ends_the_connection_of_a_pipeline(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    pipe = subject.client(pool).pipeline()
    pipe.execute_command(*LOADING)

    with pytest.raises(redis.BusyLoadingError):
        await subject.do(pipe.execute, raise_on_error=False)

    assert drained(pool)
    assert not pipe.connection


async def test_a_loading_server_ends_the_connection_of_a_watch(subject: Subject, place: PrivateServer) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    pipe = subject.client(pool).pipeline()

    with pytest.raises(redis.BusyLoadingError):
        await subject.do(pipe.immediate_execute_command, *LOADING)

    await subject.do(pipe.reset)
    assert drained(pool)
    assert not pipe.connection


async def test_a_command_refused_inside_a_transaction_leaves_the_pool_whole(
    subject: Subject, place: PrivateServer, key: str
) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    client = subject.client(pool)
    pipe = client.pipeline()
    pipe.set(key, "text").lpush(key, "item").get(key)

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await subject.do(pipe.execute)

    assert drained(pool)
    assert await subject.do(client.get, key) == b"text"


async def test_a_cut_connection_fails_one_command_and_no_more(
    subject: Subject, place: PrivateServer, tmp_path: Path, key: str
) -> None:
    with FaultProxy(tmp_path, place.url) as proxy:
        pool = subject.pool_from(proxy.url, max_connections=1, retry=subject.retry(NoBackoff(), 0))
        client = subject.client(pool)
        cut = proxy.arm(lambda request: b"INCR" in request)

        with pytest.raises(redis.ConnectionError):
            await subject.do(client.incr, key)

        await cut.strikes()
        assert drained(pool)
        assert await subject.do(client.incr, key) == 2
        await subject.close(pool)


async def test_a_retry_policy_sends_a_cut_command_again(
    subject: Subject, place: PrivateServer, tmp_path: Path, key: str
) -> None:
    with FaultProxy(tmp_path, place.url) as proxy:
        pool = subject.pool_from(proxy.url, max_connections=1, retry=subject.retry(NoBackoff(), 1))
        client = subject.client(pool)
        cut = proxy.arm(lambda request: b"INCR" in request, before=True)

        answer = await subject.do(client.incr, key)

        await cut.strikes()
        assert answer == 1
        assert drained(pool)
        await subject.close(pool)


async def test_set_retry_changes_the_policy_of_every_connection(subject: Subject, place: PrivateServer) -> None:
    if subject.name == "redis-py-threads":
        pytest.skip("set_retry of redis.BlockingConnectionPool looks for an attribute that it does not have")
    pool = subject.pool_from(place.url)
    idle = await subject.do(pool.get_connection)
    used = await subject.do(pool.get_connection)
    await subject.do(pool.release, idle)
    policy = subject.retry(NoBackoff(), 7)

    pool.set_retry(policy)

    assert idle.retry.get_retries() == used.retry.get_retries() == 7
    third, fourth = await subject.do(pool.get_connection), await subject.do(pool.get_connection)
    if subject.ours or subject.threaded:
        assert fourth.retry.get_retries() == 7
    for each in (used, third, fourth):
        await subject.do(pool.release, each)
    assert drained(pool)
