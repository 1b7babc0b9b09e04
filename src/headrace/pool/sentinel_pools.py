"""Pools for redis-py's Sentinel clients: they find the primary, or the replicas, each time that they open a connection.

    sentinel = redis.asyncio.Sentinel([("10.0.0.1", 26379), ("10.0.0.2", 26379)], socket_timeout=0.5)
    primary = sentinel.master_for("main", connection_pool_class=SentinelConnectionPool, max_connections=20)

All options of `headrace.pool.ConnectionPool` may be given, and bounds, lanes, waits and figures are the same. Once an
opening has found another primary, idle connections to the one before are closed, and those in use when they return.
"""

from __future__ import annotations

import contextlib
import random
import weakref
from typing import TYPE_CHECKING, Any

import redis.asyncio.sentinel
import redis.sentinel

from headrace.pool.client_pool import ConnectionPool
from headrace.pool.options import BOUNDS
from headrace.pool.sync_pool import ConnectionPool as SyncConnectionPool
from headrace.pool.sync_socket import connect_within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio.connection import AbstractConnection

    Place = tuple[str, int]

#: Longest time of one opening, seconds, and of each sentinel that is asked before it; redis-py's default timeout.
STEP_TIMEOUT = 5.0


class _Locating:
    """Ask the sentinels before connecting, in whichever way the pool opens the connection."""

    _locates = False

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Find the server and connect to it, once."""
        connection: Any = self
        if self._locates:
            await super().connect_check_health(check_health, retry_socket_connect)  # type: ignore[misc]  # mixed into a connection
            return
        self._locates = True
        try:
            await connection._connect_retry()  # noqa: SLF001 - what redis-py calls to find the server and connect
        finally:
            self._locates = False


class _OfGroup:
    """What the pools of both kinds know of the group of servers that they lead to."""

    service_name: str
    is_master: bool
    check_connection: bool

    def _take_group(self, service_name: str, kinds: Any, kwargs: dict[str, Any]) -> type[Any]:
        """Take what redis-py's own class takes out of the arguments, and return the class of the connections."""
        self.service_name = service_name
        self.is_master = kwargs.pop("is_master", True)
        self.check_connection = kwargs.pop("check_connection", False)
        kwargs.setdefault("name", f"{service_name} ({'primary' if self.is_master else 'replicas'})")
        given: type[Any] | None = kwargs.pop("connection_class", None)
        managed: type[Any] = (
            kinds.SentinelManagedSSLConnection if kwargs.pop("ssl", False) else kinds.SentinelManagedConnection
        )
        return given or managed

    def __repr__(self) -> str:
        """Name the service and the role."""
        role = "master" if self.is_master else "slave"
        return f"<{type(self).__module__}.{type(self).__name__}(service={self.service_name}({role}))>"


class SentinelConnectionPool(_OfGroup, ConnectionPool):
    """A `ConnectionPool` for `redis.asyncio.Sentinel(...).master_for(..., connection_pool_class=...)` and `slave_for`.

    Args:
        service_name: What the sentinels call the group.
        sentinel_manager: The client of the sentinels.
        **kwargs: `is_master`, `check_connection` and `ssl` as redis-py's class takes them, and everything that
            `ConnectionPool` takes.

    Raises:
        OptionError: An option is outside its bounds.
    """

    def __init__(self, service_name: str, sentinel_manager: redis.asyncio.sentinel.Sentinel, **kwargs: Any) -> None:
        base = self._take_group(service_name, redis.asyncio.sentinel, kwargs)
        self.sentinel_manager = sentinel_manager
        self.master_address: Place | None = None
        self.slave_rr_counter: int | None = None
        # Why: one attempt asks the sentinels too, one after the other while they do not answer.
        steps = len(sentinel_manager.sentinels) + 1
        kwargs.setdefault("open_timeout", min(BOUNDS["open_timeout"][1], STEP_TIMEOUT * steps))
        located = type(base.__name__, (_Locating, base), {"__module__": base.__module__})
        super().__init__(connection_class=located, **kwargs)
        self.connection_kwargs["connection_pool"] = weakref.proxy(self)

    def owns_connection(self, connection: AbstractConnection) -> bool:
        """Tell whether a connection leads to the primary as it was last found; any will do for replicas."""
        place: Any = connection
        return not self.is_master or self.master_address == (place.host, place.port)

    async def release(self, connection: AbstractConnection) -> None:
        """Give a connection back; one to a primary that is none any more is closed."""
        if not self.owns_connection(connection):
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        await super().release(connection)

    async def get_master_address(self) -> Place:
        """Ask the sentinels for the primary; when it is another than before, idle connections are closed.

        Raises:
            MasterNotFoundError: No sentinel knows one.
        """
        found: Place = await self.sentinel_manager.discover_master(self.service_name)
        if self.is_master and self.master_address != found:
            self.master_address = found
            await self.disconnect(inuse_connections=False)
        return found

    async def rotate_slaves(self) -> AsyncIterator[Place]:
        """Yield the replicas in turn, each time beginning with the next, and then the primary.

        Raises:
            SlaveNotFoundError: None of them could be connected to.
        """
        replicas = await self.sentinel_manager.discover_slaves(self.service_name)
        for replica in self._in_turn(list(replicas)):
            yield replica
        with contextlib.suppress(redis.asyncio.sentinel.MasterNotFoundError):
            yield await self.get_master_address()
        raise redis.asyncio.sentinel.SlaveNotFoundError(f"No replica found for {self.service_name!r}")

    def rotate_replicas(self) -> AsyncIterator[Place]:
        """Do what `rotate_slaves` does."""
        return self.rotate_slaves()

    def _in_turn(self, replicas: list[Any]) -> Iterator[Place]:
        if replicas and self.slave_rr_counter is None:
            self.slave_rr_counter = random.randrange(len(replicas))  # noqa: S311 - a place to begin, no secret
        for _ in replicas:
            self.slave_rr_counter = ((self.slave_rr_counter or 0) + 1) % len(replicas)
            yield replicas[self.slave_rr_counter]

    def reset(self) -> None:
        """Forget all connections without closing them, and where the primary was."""
        super().reset()
        self.master_address = self.slave_rr_counter = None


class SyncSentinelConnectionPool(_OfGroup, SyncConnectionPool):
    """A `headrace.pool.sync.ConnectionPool` for `redis.Sentinel(...).master_for(..., connection_pool_class=...)`.

    Args:
        service_name: What the sentinels call the group.
        sentinel_manager: The client of the sentinels.
        **kwargs: `is_master`, `check_connection` and `ssl` as redis-py's class takes them, and everything that
            `ConnectionPool` takes.

    Raises:
        OptionError: An option is outside its bounds.
    """

    def __init__(self, service_name: str, sentinel_manager: redis.sentinel.Sentinel, **kwargs: Any) -> None:
        connection_class = self._take_group(service_name, redis.sentinel, kwargs)
        self.sentinel_manager = sentinel_manager
        # What redis-py's connections ask where to go; it knows the pool weakly.
        self.proxy = redis.sentinel.SentinelConnectionPoolProxy(  # type: ignore[no-untyped-call]  # redis-py has no types here
            connection_pool=self,
            is_master=self.is_master,
            check_connection=self.check_connection,
            service_name=service_name,
            sentinel_manager=sentinel_manager,
        )
        super().__init__(connection_class=connection_class, **kwargs)
        self.connection_kwargs["connection_pool"] = self.proxy

    @property
    def master_address(self) -> Place | None:
        """Where the primary was when it was last asked for."""
        found: Place | None = self.proxy.master_address
        return found

    def owns_connection(self, connection: Any) -> bool:
        """Tell whether a connection may be lent again: of this process, and to the primary as it was last found."""
        is_there = not self.is_master or self.master_address == (connection.host, connection.port)
        return is_there and super().owns_connection(connection)

    def connect_once(self, connection: Any, seconds: float) -> None:
        """Find the server and connect to it."""
        connect_within(connection, seconds, connection.connect)

    def get_master_address(self) -> Place:
        """Ask the sentinels for the primary; when it is another than before, idle connections are closed.

        Raises:
            MasterNotFoundError: No sentinel knows one.
        """
        found: Place = self.proxy.get_master_address()  # type: ignore[no-untyped-call]  # redis-py has no types here
        return found

    def rotate_slaves(self) -> Iterator[Place]:
        """Yield the replicas in turn, each time beginning with the next, and then the primary.

        Raises:
            SlaveNotFoundError: None of them could be connected to.
        """
        places: Iterator[Place] = self.proxy.rotate_slaves()  # type: ignore[no-untyped-call]  # redis-py has no types here
        return places

    def rotate_replicas(self) -> Iterator[Place]:
        """Do what `rotate_slaves` does."""
        return self.rotate_slaves()

    def reset(self) -> None:
        """Begin with no connections, and forget where the primary was."""
        super().reset()
        self.proxy.reset()  # type: ignore[no-untyped-call]  # redis-py has no types here


__all__ = ["SentinelConnectionPool", "SyncSentinelConnectionPool"]
