"""The pools of the nodes of a cluster, one for each place, whichever of redis-py's node objects stands for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from headrace.census import Census
from headrace.errors import ConnectionLost, PoolClosed
from headrace.pool.client_errors import pool_timeout
from headrace.pool.client_pool import ConnectionPool
from headrace.pool.holders import find_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.connection import AbstractConnection

#: Seconds that a pool of a node waits for a server that is away: none, since the client then asks for the new topology.
NODE_PATIENCE: Final = 0.0
#: What is told as redis-py's own error.
AWAY: Final = (ConnectionLost, PoolClosed)
#: Connections of a node that left the cluster may finish what they do for so long, seconds.
LEAVE_TIMEOUT: Final = 30.0


def plain_error(error: Exception) -> Exception:
    """Return an error as redis-py's own class, since its cluster clients repeat only after exactly these."""
    kind = RedisTimeoutError if isinstance(error, RedisTimeoutError) else RedisConnectionError
    plain: Exception = kind(str(error))
    plain.__cause__ = error
    return plain


class NodePool(ConnectionPool):
    """The pool of one node of the asyncio client, which also serves what redis-py does without waiting."""

    async def get_connection(self, command_name: object = None, *keys: Any, **options: Any) -> AbstractConnection:
        """Take a connection, waiting in line; that the node is away is told as redis-py tells it.

        Raises:
            PoolTimeout: The wait ran out.
            RedisError: The node is away, or the pool is closed.
        """
        try:
            return await super().get_connection(command_name, *keys, **options)
        except AWAY as error:
            raise plain_error(error) from error

    def take_connection(self) -> AbstractConnection:
        """Return a connection at once: an idle one, or a new one that is opened by its first command.

        Raises:
            PoolTimeout: All are in use, or others wait already.
        """
        core, book, now = self._core, self._book, time.monotonic()
        core.bind()
        member = core.ledger.take(book, now)
        if member is None and self.can_get_connection():
            core.ledger.open_began()
            core.entered(self.make_connection())  # type: ignore[no-untyped-call]  # redis-py has no types here
            member = core.ledger.take(book, now)
        if member is None:
            raise pool_timeout(
                self.name,
                str(book.lane),
                waited=0.0,
                share=book.share,
                used=book.used,
                ahead=len(book.waiters),
                holders=core.ledger.holders(now, book.lane),
            )
        member.owner, member.place = asyncio.current_task(), find_place()
        return member.connection

    def release_connection(self, connection: AbstractConnection) -> None:
        """Give a connection back at once; one that has to log in anew is replaced."""
        if connection in self._core.reauth:
            self._core.reauth.discard(connection)
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        self._core.release(connection)


class NodePools:
    """The pools of one asyncio client, one for each place, whichever of redis-py's node objects stands for it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self.census: Census = self._options.get("census") or Census()
        self._options["census"] = self.census
        # Bounded by the nodes of the cluster; one that left is taken out.
        self.pools: dict[str, NodePool] = {}

    def pool(self, node: ClusterNode) -> NodePool:
        """Return the pool of a place, made on first use."""
        pool = self.pools.get(node.name)
        if pool is None:
            options = {key: value for key, value in node.connection_kwargs.items() if key != "response_callbacks"}
            # Why: the client itself repeats, with what it knows of the cluster.
            options["retry"] = Retry(NoBackoff(), 0, supported_errors=(RedisConnectionError,))
            options |= {"reconnect_patience": NODE_PATIENCE, "name": f"node {node.name}"} | self._options
            pool = NodePool(node.connection_class, node.max_connections, **options)
            self.pools[node.name] = pool
        return pool

    async def leave(self, name: str) -> None:
        """Close the pool of a place that left the cluster, once what is in use has come back."""
        pool = self.pools.pop(name, None)
        if pool is None:
            return
        deadline = time.monotonic() + LEAVE_TIMEOUT
        while pool.stats().active and time.monotonic() < deadline:  # noqa: ASYNC110 - rare, and nobody is told of releases
            await asyncio.sleep(0.05)
        await pool.aclose()
