"""What redis-py's client does with a pool: pipelines, subscriptions, locks, scans, blocking calls, many callers."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff

from tests.live import until
from tests.pool.contract.subjects import DEADLINE, Subject, counts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headrace.server import PrivateServer
    from tests.support.raw import Raw


async def closed(subject: Subject, thing: Any) -> None:
    await subject.do(thing.close if subject.threaded else thing.aclose)


def busy(pool: Any) -> Callable[[], Awaitable[bool]]:
    async def has_one() -> bool:
        return counts(pool)[1] > 0

    return has_one


async def message(subject: Subject, pubsub: Any) -> dict[str, Any]:
    """Return the next message of a subscription."""
    found = await subject.do(pubsub.get_message, timeout=DEADLINE)
    assert found is not None
    return dict(found)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [True, False])
async def test_replies_have_the_types_of_the_protocol_and_the_decoding(
    subject: Subject, place: PrivateServer, key: str, protocol: int, *, decode: bool
) -> None:
    pool = subject.pool_from(place.url, protocol=protocol, decode_responses=decode)
    client = subject.client(pool)

    await subject.do(client.hset, key, mapping={"a": 1, "ä": 2})

    expected = {"a": "1", "ä": "2"} if decode else {b"a": b"1", "ä".encode(): b"2"}
    assert await subject.do(client.hgetall, key) == expected
    info = await subject.do(client.client_info)
    assert info["resp"] == str(protocol)
    assert counts(pool) == (1, 0)


async def test_a_pipeline_returns_all_replies_in_order(subject: Subject, place: PrivateServer, key: str) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    pipe = subject.client(pool).pipeline(transaction=False)
    for number in range(50):
        pipe.rpush(key, number)
    pipe.lrange(key, 0, 2)

    answers = await subject.do(pipe.execute)

    assert answers == [*range(1, 51), [b"0", b"1", b"2"]]
    assert counts(pool) == (1, 0)


async def test_a_watched_key_that_changes_ends_the_transaction(
    subject: Subject, place: PrivateServer, key: str, peer: Raw
) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    client = subject.client(pool)
    pipe = client.pipeline()
    await subject.do(pipe.watch, key)
    assert counts(pool)[1] == 1
    await subject.do(pipe.get, key)
    peer("SET", key, "changed")
    pipe.multi()
    pipe.set(key, "lost")

    with pytest.raises(redis.WatchError):
        await subject.do(pipe.execute)

    assert counts(pool)[1] == 0
    assert await subject.do(client.get, key) == b"changed"


async def test_a_pipeline_that_is_reset_watches_nothing_any_more(
    subject: Subject, place: PrivateServer, key: str, peer: Raw
) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    pipe = subject.client(pool).pipeline()
    await subject.do(pipe.watch, key)

    await subject.do(pipe.reset)

    assert counts(pool) == (1, 0)
    peer("SET", key, "changed")
    pipe.set(key, "kept")
    assert await subject.do(pipe.execute) == [True]


async def test_a_transaction_repeats_until_nothing_was_changed(
    subject: Subject, place: PrivateServer, key: str
) -> None:
    pool = subject.pool_from(place.url, max_connections=8)
    client = subject.client(pool)
    await subject.do(client.set, key, 0)

    def add(pipe: Any) -> None:
        now = int(pipe.get(key))
        pipe.multi()
        pipe.set(key, now + 1)

    async def add_async(pipe: Any) -> None:
        now = int(await pipe.get(key))
        pipe.multi()
        pipe.set(key, now + 1)

    work = add if subject.threaded else add_async
    await asyncio.gather(*(subject.do(client.transaction, work, key) for _ in range(8)))

    assert await subject.do(client.get, key) == b"8"
    assert counts(pool)[1] == 0


async def test_a_subscription_holds_its_connection_and_gives_it_back(
    subject: Subject, place: PrivateServer, key: str, peer: Raw
) -> None:
    pool = subject.pool_from(place.url, max_connections=2)
    pubsub = subject.client(pool).pubsub()
    await subject.do(pubsub.subscribe, key)
    assert (await message(subject, pubsub))["type"] == "subscribe"
    assert counts(pool)[1] == 1

    peer("PUBLISH", key, "hello")

    assert (await message(subject, pubsub))["data"] == b"hello"
    await closed(subject, pubsub)
    assert counts(pool)[1] == 0
    # What was subscribed is not lent to the next.
    assert await subject.do(subject.client(pool).ping) is True


async def test_a_subscription_comes_back_after_its_connection_was_lost(
    subject: Subject, place: PrivateServer, key: str, peer: Raw
) -> None:
    pool = subject.pool_from(place.url, client_name=key, retry=subject.retry(NoBackoff(), 1))
    pubsub = subject.client(pool).pubsub()
    await subject.do(pubsub.subscribe, key)
    assert (await message(subject, pubsub))["type"] == "subscribe"
    client_ids = [line.split()[0] for line in peer("CLIENT", "LIST").decode().splitlines() if f"name={key} " in line]

    assert peer("CLIENT", "KILL", "ID", client_ids[0].removeprefix("id=")) == 1
    again = await message(subject, pubsub)

    assert again["type"] == "subscribe"
    peer("PUBLISH", key, "after")
    assert (await message(subject, pubsub))["data"] == b"after"
    await closed(subject, pubsub)
    assert counts(pool)[1] == 0


async def test_monitor_holds_one_connection_while_it_is_open(subject: Subject, place: PrivateServer, key: str) -> None:
    pool = subject.pool_from(place.url, max_connections=2, driver_info=None)
    client = subject.client(pool)
    commands = ["HELLO", "GET"]
    if subject.threaded:
        with await subject.do(client.monitor) as monitor:
            await subject.do(client.get, key)
            seen = [await subject.do(monitor.next_command) for _ in commands]
    else:
        async with client.monitor() as monitor:
            await client.get(key)
            seen = [await subject.do(monitor.next_command) for _ in commands]

    # The other connection logs in before its command.
    assert [each["command"].split()[0] for each in seen] == commands
    assert key in seen[-1]["command"]
    assert counts(pool)[1] == 0


async def test_a_lock_is_held_by_one_at_a_time(subject: Subject, place: PrivateServer, key: str) -> None:
    pool = subject.pool_from(place.url, max_connections=4)
    client = subject.client(pool)
    first = client.lock(key, timeout=DEADLINE, thread_local=False)
    second = client.lock(key, timeout=DEADLINE, thread_local=False)

    assert await subject.do(first.acquire, blocking=False) is True
    assert await subject.do(second.acquire, blocking=False) is False
    await subject.do(first.release)

    assert await subject.do(second.acquire, blocking=False) is True
    await subject.do(second.release)
    assert counts(pool)[1] == 0


async def test_a_blocking_call_holds_its_connection_and_no_other(
    subject: Subject, place: PrivateServer, key: str
) -> None:
    pool = subject.pool_from(place.url, max_connections=2)
    client = subject.client(pool)
    waiting = subject.start(client.blpop, [key], timeout=4)
    await until(busy(pool), "the call holds a connection")

    await subject.do(client.rpush, key, "item")

    assert list(await waiting) == [key.encode(), b"item"]
    assert counts(pool)[1] == 0


async def test_scans_give_everything_and_hold_nothing_between_pages(
    subject: Subject, place: PrivateServer, key: str
) -> None:
    pool = subject.pool_from(place.url, max_connections=1)
    client = subject.client(pool)
    await subject.do(client.sadd, key, *range(500))

    members = await subject.collect(client.sscan_iter(key, count=20))

    assert sorted(map(int, members)) == list(range(500))
    assert counts(pool) == (1, 0)


async def test_many_callers_share_few_connections_and_get_their_own_replies(
    subject: Subject, place: PrivateServer, key: str
) -> None:
    pool = subject.pool_from(place.url, max_connections=3, timeout=DEADLINE)
    client = subject.client(pool)

    async def echo(number: int) -> bool:
        return bool(await subject.do(client.echo, f"{key}-{number}") == f"{key}-{number}".encode())

    assert all(await asyncio.gather(*(echo(number) for number in range(300))))
    idle, used = counts(pool)
    assert used == 0
    assert idle <= 3


async def test_a_script_is_loaded_on_the_connection_that_lacks_it(
    subject: Subject, place: PrivateServer, key: str, peer: Raw
) -> None:
    pool = subject.pool_from(place.url)
    script = subject.client(pool).register_script("return redis.call('INCR', KEYS[1])")
    peer("SCRIPT", "FLUSH")

    assert await subject.do(script, keys=[key]) == 1
    assert counts(pool)[1] == 0


async def test_client_side_caching_reads_from_memory_until_the_key_changes(
    subject: Subject, place: PrivateServer, key: str, peer: Raw
) -> None:
    if not subject.threaded:
        pytest.skip("redis-py caches for its synchronous client only")
    pool = subject.pool_from(place.url, protocol=3, cache_config=redis.cache.CacheConfig())
    client = subject.client(pool)
    version = re.search(r"redis_version:(\d+)\.(\d+)", peer("INFO", "server").decode())
    assert version is not None
    if (int(version[1]), int(version[2])) < (7, 4):
        pytest.skip("redis-py caches with Redis 7.4 and later only, and Valkey calls itself 7.2")
    peer("SET", key, "old")
    assert await subject.do(client.get, key) == b"old"
    assert client.get_cache().size == 1

    peer("SET", key, "new")
    await asyncio.sleep(0.02)

    assert await subject.do(client.get, key) == b"new"
    assert counts(pool) == (1, 0)
