"""Our pools under redis-py's cluster clients: bounded for each node, waited for in line, kept through a failover."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import headrace.pool
import headrace.pool.sync
from headrace.errors import OptionError, PoolTimeout, UsageError
from tests.live import until
from tests.support.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

DEADLINE = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("pools")) as cluster:
        yield cluster


@pytest.fixture(params=["asyncio", "threads"])
def threaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "threads")


async def do(client: Any, call: Any, *args: Any, **options: Any) -> Any:
    """Make one call of either client."""
    if isinstance(client, redis.RedisCluster):
        return await asyncio.to_thread(call, *args, **options)
    return await call(*args, **options)


@contextlib.asynccontextmanager
async def opened(cluster: Cluster, *, threaded: bool, **options: Any) -> AsyncIterator[Any]:
    kind: Any = headrace.pool.sync.RedisCluster if threaded else headrace.pool.RedisCluster
    client = await asyncio.to_thread(kind.from_url, cluster.running[0].url, **options)
    yield client
    await do(client, client.close if threaded else client.aclose)
    assert client.stats() == {} or all(pool.total == 0 for pool in client.stats().values())


async def test_many_callers_share_few_connections_of_each_node(cluster: Cluster, *, threaded: bool) -> None:
    async with opened(cluster, threaded=threaded, max_connections=2, pool_options={"timeout": DEADLINE}) as client:

        async def write(number: int) -> Any:
            await do(client, client.set, f"key-{number}", number)
            return await do(client, client.get, f"key-{number}")

        # Why: redis-py's client does not know where commands belong while it is used for the first time.
        await write(0)
        answers = await asyncio.gather(*(write(number) for number in range(200)))

        assert answers == [str(number).encode() for number in range(200)]
        stats = client.stats()
        assert sum(pool.calls_total > 10 for pool in stats.values()) == 3
        assert all(pool.total <= 2 and pool.opened_total <= 3 for pool in stats.values())
        assert all((pool.active, pool.waiting, pool.maximum) == (0, 0, 2) for pool in stats.values())
        assert all(name.startswith("127.0.0.1:") for name in stats)


async def test_a_wait_that_runs_out_is_no_reason_to_look_for_another_node(cluster: Cluster, *, threaded: bool) -> None:
    async with opened(cluster, threaded=threaded, max_connections=1, pool_options={"timeout": 0.2}) as client:
        await do(client, client.set, "{a}", 1)
        epoch = client.nodes_manager._epoch
        blocked = asyncio.create_task(do(client, client.blpop, ["{a}list"], timeout=1))
        await asyncio.sleep(0.1)

        with pytest.raises(PoolTimeout, match="1 of 1 in use"):
            await do(client, client.get, "{a}")

        assert client.nodes_manager._epoch == epoch
        assert await blocked is None


async def test_pipelines_transactions_and_subscriptions_use_the_pools(cluster: Cluster, *, threaded: bool) -> None:
    async with opened(cluster, threaded=threaded, max_connections=3) as client:
        pipe = client.pipeline()
        for number in range(20):
            pipe.set(f"pipe-{number}", number)
        assert await do(client, pipe.execute) == [True] * 20
        transaction = client.pipeline(transaction=True)
        transaction.set("{t}a", 1)
        transaction.incr("{t}a")
        assert (await do(client, transaction.execute))[-1] == 2
        pubsub = client.pubsub()
        await do(client, pubsub.subscribe, "news")
        assert sum(pool.active for pool in client.stats().values()) == 1
        await do(client, client.publish, "news", "hello")
        messages: list[Any] = []
        while not any(message["type"] == "message" for message in messages):
            found = await do(client, pubsub.get_message, timeout=5)
            messages += [found] if found else []
        await do(client, pubsub.close if threaded else pubsub.aclose)

        assert messages[-1]["data"] == b"hello"
        assert all((pool.active, pool.total <= 3) == (0, True) for pool in client.stats().values())


async def test_a_client_is_usable_again_after_it_was_closed(cluster: Cluster) -> None:
    async with opened(cluster, threaded=False) as client:
        await client.set("again", 1)
        await client.aclose()
        assert client.stats() == {}

        assert await client.get("again") == b"1"


async def test_a_redirect_that_makes_the_client_look_around_disturbs_no_other_call(cluster: Cluster) -> None:
    options: dict[str, Any] = {"reinitialize_steps": 2, "retry": Retry(NoBackoff(), 0)}
    async with opened(cluster, threaded=False, max_connections=2, **options) as client:
        await client.set("somewhere", 0)
        right = client.get_node_from_key("somewhere")
        wrong = next(node for node in client.get_primaries() if node.name != right.name)
        waiting = [asyncio.create_task(client.blpop(node_key(client, node), timeout=1)) for node in (right, wrong)]

        async def all_wait() -> bool:
            return bool(sum(pool.active for pool in client.stats().values()) == len(waiting))

        await until(all_wait, "both calls have a connection")

        done = []
        for number in range(2):
            client.nodes_manager.slots_cache[client.keyslot("somewhere")] = [wrong]
            done.append(await client.set("somewhere", number))

        assert done == [True, True]
        assert await asyncio.gather(*waiting) == [None, None]
        assert sum(pool.active for pool in client.stats().values()) == 0


def node_key(client: Any, node: Any) -> str:
    """Return a key of a node."""
    names = (f"at-{number}" for number in range(999))
    return next(name for name in names if str(client.get_node_from_key(name).name) == str(node.name))


async def test_wrong_options_are_refused(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match=r'RedisCluster.from_url\("redis://host:6379"\)'):
        headrace.pool.sync.RedisCluster(host="127.0.0.1")
    kind: Any = headrace.pool.RedisCluster
    with pytest.raises(OptionError, match="timeout=-1"):
        kind.from_url(cluster.running[0].url, pool_options={"timeout": -1})


def has_replica(cluster: Cluster, client: Any, key: str) -> bool:
    """Whether the primary of a key may be lost; a test before this one may have taken its replica."""
    lines = cluster.running[0]("CLUSTER", "REPLICAS", cluster.primary_of(client.keyslot(key)).id)
    ids = {line.decode().split(" ", 1)[0] for line in lines}
    return any(node.id in ids for node in cluster.running)


async def test_callers_go_on_after_a_primary_was_killed(cluster: Cluster, *, threaded: bool) -> None:
    async with opened(cluster, threaded=threaded, max_connections=2) as client:
        key = next(key for key in (f"survivor-{number}" for number in range(99)) if has_replica(cluster, client, key))
        await do(client, client.set, key, 0)
        primary = cluster.primary_of(client.keyslot(key))

        await asyncio.to_thread(primary.kill)
        began = time.monotonic()
        done = 0
        while done < 20:
            try:
                await do(client, client.incr, key)
                done += 1
            except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ClusterError, redis.ResponseError):
                assert time.monotonic() - began < DEADLINE
                await asyncio.sleep(0.05)

        async def is_forgotten() -> bool:
            return f"127.0.0.1:{primary.port}" not in client.stats()

        # The pool of the lost node ends with the topology that no longer has it.
        await do(client, client.nodes_manager.initialize)
        await until(is_forgotten, "the pool of the lost node is closed")
        assert all(pool.total <= 2 for pool in client.stats().values())
        assert sum(pool.active for pool in client.stats().values()) == 0
