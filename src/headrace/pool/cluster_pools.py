"""redis-py's cluster clients with a bounded, fair pool for each node.

    cluster = RedisCluster.from_url("redis://10.0.0.1:6379", max_connections=20, pool_options={"timeout": 5.0})

redis-py's asyncio client keeps the connections of a node itself and raises an error when all are in use; its other
client takes a pool class, but only from a URL. These two subclasses give each node one of our pools instead:
callers wait in line, each until its timeout, and `stats()` tells about every node. `max_connections` is for each node,
as redis-py has it. Nothing of redis-py is patched; what it calls on a node is answered by a node of ours.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio.cluster
import redis.cluster

from headrace.pool.client_errors import ClientUsageError
from headrace.pool.node_pools import AWAY, NODE_PATIENCE, NodePool, NodePools, plain_error
from headrace.pool.sync_pool import ConnectionPool as SyncConnectionPool

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.connection import AbstractConnection
    from redis.auth.token import TokenInterface

    from headrace.pool.figures import PoolStats

#: Whether this is the middle of a command of a cluster client.
_commanding: Final[ContextVar[bool]] = ContextVar("headrace_cluster_command", default=False)


class PooledNode(redis.asyncio.cluster.ClusterNode):
    """A node of the asyncio client whose connections come from a pool.

    Args:
        node: redis-py's node for the same place.
        pools: The pools of the client.
    """

    __slots__ = ("_handed", "_lenders", "pool", "pools")

    def __init__(self, node: ClusterNode, pools: NodePools) -> None:
        self.pools = pools
        # redis-py takes the callbacks out of what it is given.
        options = dict(node.connection_kwargs, response_callbacks=node.response_callbacks)
        super().__init__(
            options.pop("host"),
            options.pop("port"),
            node.server_type,
            max_connections=node.max_connections,
            connection_class=node.connection_class,
            **options,
        )
        self.pool = pools.pool(self)
        self._handed: AbstractConnection | None = None
        # Bounded by the connections in use: while one is, the pool of the place may be replaced by another.
        self._lenders: dict[AbstractConnection, NodePool] = {}

    # What redis-py keeps in each node is read from the pool.

    @property
    def _connections(self) -> list[Any]:
        return [*self._free, *self.pool._in_use_connections] if hasattr(self, "pool") else []  # noqa: SLF001 - redis-py's own name for them

    @_connections.setter
    def _connections(self, value: object) -> None:
        """Ignore what the constructor of redis-py's node would empty."""

    @property
    def _free(self) -> Any:
        return self.pool._available_connections if hasattr(self, "pool") else []  # noqa: SLF001 - redis-py's own name for them

    @_free.setter
    def _free(self, value: object) -> None:
        """Ignore what the constructor of redis-py's node would empty."""

    def __del__(self, *_: Any) -> None:
        """Do nothing: the pool ends by itself."""

    async def execute_command(self, *args: Any, asking: bool = False, **kwargs: Any) -> Any:
        """Send one command, waiting in line for a connection.

        Raises:
            PoolTimeout: The wait ran out.
            RedisError: As redis-py's node.
        """
        connection = await self._take()
        return await self._with(connection, super().execute_command(*args, asking=asking, **kwargs))

    async def execute_pipeline(self, commands: list[Any]) -> bool:
        """Send several commands, waiting in line for a connection; raises as `execute_command`."""
        connection = await self._take()
        return bool(await self._with(connection, super().execute_pipeline(commands)))

    async def _take(self) -> AbstractConnection:
        if self.pools.pools.get(self.name) is not self.pool:
            # The client was closed and is used again, or the place left the cluster and came back.
            self.pool = self.pools.pool(self)
        pool = self.pool
        connection = await pool.get_connection()
        self._lenders[connection] = pool
        return connection

    def _with(self, connection: AbstractConnection, work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Let redis-py's node find this connection when it acquires one, which is the first thing that it does."""

        async def run() -> Any:
            # Invariant: nothing else runs between this line and `acquire_connection`, which takes it out.
            self._handed = connection
            return await work

        return run()

    def acquire_connection(self) -> Any:
        """Return the connection that was waited for; a transaction or subscription, which cannot wait, gets a free one.

        Raises:
            PoolTimeout: All connections of the node are in use.
        """
        connection, self._handed = self._handed, None
        if connection is None:
            connection = self.pool.take_connection()
            self._lenders[connection] = self.pool
        return connection

    def release(self, connection: Any) -> None:
        """Give a connection back; whoever waits first gets it."""
        self._lenders.pop(connection, self.pool).release_connection(connection)

    async def disconnect(self) -> None:
        """Close all connections of the place, when the client closes.

        In the middle of a command redis-py only wants to ask for the topology anew. It would break what others have
        under way, although a connection to a node that moved a slot is as good as before.
        """
        pool = self.pools.pools.get(self.name)
        if pool is not None and not _commanding.get():
            await pool.disconnect()

    async def disconnect_free_connections(self) -> None:
        """Close what is idle."""
        await self.pool.disconnect(inuse_connections=False)

    async def re_auth_callback(self, token: TokenInterface) -> None:
        """Log in anew with a token."""
        await self.pool.re_auth_callback(token)


class PooledNodes(redis.asyncio.cluster.NodesManager):
    """The nodes of one asyncio client; each that redis-py makes is replaced by one with a pool."""

    __slots__ = ("pools",)

    pools: NodePools

    def set_nodes(self, old: dict[str, Any], new: dict[str, Any], remove_old: bool = False) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Enter nodes of a new topology; the pool of a place that left is closed when nobody uses it any more."""
        before = set(old)
        for name, node in new.items():
            if name not in old and not isinstance(node, PooledNode):
                new[name] = PooledNode(node, self.pools)
        super().set_nodes(old, new, remove_old=remove_old)
        for name in before - set(old) - set(self.nodes_cache) - set(self.startup_nodes):
            _ = self.pools.census.create_task(
                self.pools.leave(name), name="close the pool of a node", owner=f"node {name}"
            )

    async def move_slot(self, e: Any) -> None:
        """Note who serves a slot now; a place that is new gets its node first."""
        if self.get_node(host=e.host, port=e.port) is None:
            primary = redis.asyncio.cluster.ClusterNode(
                e.host, e.port, redis.cluster.PRIMARY, **dict(self.connection_kwargs)
            )
            self.set_nodes(self.nodes_cache, {primary.name: primary})
        await super().move_slot(e)


class RedisCluster(redis.asyncio.RedisCluster):
    """`redis.asyncio.RedisCluster` with a `ConnectionPool` for each node.

    Args:
        *args: As redis-py's.
        pool_options: Options of each node's pool, such as `timeout`, `min_connections` and `held_warn`.
        **kwargs: As redis-py's; `max_connections` bounds each node.

    Raises:
        OptionError: An option of the pools is outside its bounds.
    """

    def __init__(self, *args: Any, pool_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain = self.nodes_manager
        self._pools = NodePools(pool_options or {})
        started = {name: PooledNode(node, self._pools) for name, node in plain.startup_nodes.items()}
        manager = PooledNodes(
            list(started.values()),
            plain.require_full_coverage,
            plain.connection_kwargs,
            dynamic_startup_nodes=plain._dynamic_startup_nodes,  # noqa: SLF001 - as it was given to redis-py's
            address_remap=plain.address_remap,
            event_dispatcher=plain._event_dispatcher,  # noqa: SLF001 - as it was given to redis-py's
        )
        manager.pools = self._pools
        self.nodes_manager = manager
        self.startup_nodes = list(started.values())

    def stats(self) -> dict[str, PoolStats]:
        """Return the figures of each node's pool, by `host:port`."""
        return {name: pool.stats() for name, pool in self._pools.pools.items()}

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Send one command to the node that serves its key; waits, errors and repetitions as redis-py's.

        Raises:
            PoolTimeout: The wait for a connection ran out.
            RedisError: As redis-py's client.
        """
        token = _commanding.set(True)
        try:
            return await super().execute_command(*args, **kwargs)
        finally:
            _commanding.reset(token)

    async def aclose(self) -> None:
        """Close the client and the pools of all nodes."""
        await super().aclose()
        if _commanding.get():
            # Why: it is redis-py that calls, in the middle of a command, to ask for the topology anew. Others use the
            # pools, and may have opened connections to the new nodes already.
            return
        while self._pools.pools:
            await self._pools.pools.popitem()[1].aclose()


class SyncClusterConnectionPool(SyncConnectionPool):
    """The pool of one node of `redis.RedisCluster`, for its option `connection_pool_class`.

    Args:
        **kwargs: As `headrace.pool.sync.ConnectionPool`, but that nobody waits for a node that is away: the client
            then asks for the new topology.

    Raises:
        OptionError: An option is outside its bounds.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("reconnect_patience", NODE_PATIENCE)
        kwargs.setdefault("name", f"node {kwargs.get('host')}:{kwargs.get('port')}")
        super().__init__(**kwargs)

    def get_connection(self, command_name: object = None, *keys: Any, **options: Any) -> Any:
        """Take a connection, waiting in line; that the node is away is told as redis-py tells it.

        Raises:
            PoolTimeout: The wait ran out.
            RedisError: The node is away, or the pool is closed.
        """
        try:
            return super().get_connection(command_name, *keys, **options)
        except AWAY as error:
            raise plain_error(error) from error


class SyncRedisCluster(redis.cluster.RedisCluster):
    """`redis.RedisCluster` with a `headrace.pool.sync.ConnectionPool` for each node.

    Args:
        *args: As redis-py's.
        pool_options: Options of each node's pool, such as `timeout`, `min_connections` and `held_warn`.
        **kwargs: As redis-py's, with a `url`, best by `RedisCluster.from_url`; `max_connections` bounds each node.

    Raises:
        UsageError: No URL is given: redis-py takes a pool class with one only.
        OptionError: An option of the pools is outside its bounds.
    """

    def __init__(self, *args: Any, pool_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if not kwargs.get("url"):
            raise ClientUsageError(
                "RedisCluster of headrace.pool.sync was given no url: redis-py takes a pool class with one only. "
                'Write RedisCluster.from_url("redis://host:6379").'
            )
        options = dict(pool_options or {})
        # Weak, so bounded by the nodes that redis-py knows: a pool ends with the node that it was made for.
        self._pools: weakref.WeakSet[SyncConnectionPool] = weakref.WeakSet()

        def make_pool(**given: Any) -> SyncConnectionPool:
            pool = SyncClusterConnectionPool(**(given | options))
            self._pools.add(pool)
            return pool

        super().__init__(*args, connection_pool_class=make_pool, **kwargs)

    def stats(self) -> dict[str, PoolStats]:
        """Return the figures of each node's pool, by `host:port`."""
        return {pool.name.removeprefix("node "): pool.stats() for pool in self._live()}

    def close(self) -> None:
        """Close the client and the pools of all nodes."""
        super().close()
        for pool in list(self._pools):
            pool.close()

    def _live(self) -> list[SyncConnectionPool]:
        nodes = list(self.nodes_manager.nodes_cache.values())
        used = {node.redis_connection.connection_pool for node in nodes if node.redis_connection is not None}
        return [pool for pool in list(self._pools) if pool in used]


__all__ = ["PooledNode", "RedisCluster", "SyncClusterConnectionPool", "SyncRedisCluster"]
