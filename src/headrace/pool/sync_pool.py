"""The connection pool for threads: a drop-in for redis-py's that is bounded, fair and tells what it does.

    pool = ConnectionPool.from_url("redis://127.0.0.1:6379/0", max_connections=20, min_connections=4)
    client = redis.Redis(connection_pool=pool)

`headrace.pool.ConnectionPool` is the same for asyncio.
"""

from __future__ import annotations

import copy
import os
import time
from typing import TYPE_CHECKING, Any, Self

import redis
from redis.connection import CacheProxyConnection, Connection
from redis.event import AfterConnectionReleasedEvent

from headrace.pool.figures import PoolStats, read_stats
from headrace.pool.holders import Holder, find_place
from headrace.pool.limits import DEFAULT_MAXIMUM, find_lane, plan_limits
from headrace.pool.options import read_number, take_options
from headrace.pool.sync_lending import Lending
from headrace.pool.sync_socket import connect_within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import RLock
    from types import TracebackType

    from redis.auth.token import TokenInterface
    from redis.event import EventDispatcherInterface

    from headrace.census import Census
    from headrace.pool.lanes import Lane


class ConnectionPool(redis.ConnectionPool):
    """A bounded, fair, thread-safe pool for `redis.Redis(connection_pool=...)`.

    It never holds more than `max_connections`, counting those being opened and closed; it serves waiting threads
    first-in first-out, each until its timeout; it keeps `min_connections` open; it closes what was idle for long; and
    while the server is away one thread at a time tries to open a connection, for all that wait. A forked child never
    uses the sockets of its parent. Threads that wait open connections themselves; one thread of the process looks after
    all pools (`headrace.pool.sync_upkeep`).

    Args:
        connection_class: As for redis-py.
        max_connections: Most connections, 1..10000.
        min_connections: Connections opened in parallel at the start and kept, 0..max_connections.
        timeout: Longest wait for a connection in seconds, up to 600; None for 600.
        lanes: Shares of `control`, `blocking`, `jobs` and `user` that add up to `max_connections`; without any, all
            belong to `user`. `lane` returns a pool that draws from one of them.
        name: Shown in errors, logs and figures.
        census: Where connections and threads are entered, for a pool that belongs to an app.
        on_event: Told `exhausted` and `recovered`, with the facts, by the thread that looks after all pools.
        queue_class: Accepted and not used, as redis-py's BlockingConnectionPool has it.
        **kwargs: The further options of `PoolOptions`, and what redis-py's pool and connections take.

    Raises:
        OptionError: An option is outside its bounds.
    """

    def __init__(
        self,
        connection_class: type[Any] = Connection,
        max_connections: int | None = None,
        *,
        min_connections: int = 0,
        timeout: float | None = 20.0,
        lanes: Mapping[str, int] | None = None,
        name: str = "pool",
        census: Census | None = None,
        on_event: Callable[[str, dict[str, object]], None] | None = None,
        queue_class: object = None,
        **kwargs: Any,
    ) -> None:
        del queue_class
        options = take_options(kwargs, timeout)
        min_connections = read_number("min_connections", min_connections)
        maximum = DEFAULT_MAXIMUM if max_connections is None else max_connections
        self._lending = Lending(
            name,
            (maximum, min_connections, lanes),
            options,
            self,
            census=census,
            on_event=on_event,
        )
        self._lane = next(reversed(self._lending.ledger.lanes))
        self._whose = ("", "")
        self.timeout = options.timeout
        self.name = name
        #: What a program gave to hear of releases; redis-py's own listeners log in anew, which is done here.
        self._listener: EventDispatcherInterface | None = kwargs.get("event_dispatcher")
        super().__init__(connection_class=connection_class, max_connections=maximum, **kwargs)

    # What redis-py's pool keeps as attributes, read from the ledger.

    @property
    def max_connections(self) -> int:
        """Most connections."""
        return self._lending.ledger.maximum

    @max_connections.setter
    def max_connections(self, value: int) -> None:
        # The constructor of redis-py's pool sets what is set already.
        if value != self._lending.ledger.maximum:
            self.resize(maximum=value)

    @property
    def min_connections(self) -> int:
        """Connections that are kept open."""
        return self._lending.ledger.minimum

    @property
    def _available_connections(self) -> list[Any]:
        with self._lending.lock:
            return [member.connection for member in self._lending.ledger.idle]

    @_available_connections.setter
    def _available_connections(self, value: object) -> None:
        """Ignore what redis-py's pool would empty."""

    @property
    def _in_use_connections(self) -> set[Any]:
        with self._lending.lock:
            return set(self._lending.ledger.leased)

    @_in_use_connections.setter
    def _in_use_connections(self, value: object) -> None:
        """Ignore what redis-py's pool would empty."""

    def _get_pool_lock(self) -> RLock:
        return self._lending.lock

    # Lanes

    def lane(self, lane: str, *, owner: str = "", purpose: str = "") -> Self:
        """Return a pool that draws from one lane, for a client of its own.

        It is the same pool: the same connections, limits and figures. Closing it does nothing; close the pool itself.

        Args:
            lane: One of the lanes that the pool has.
            owner: Who its connections are said to be held by; without one, the name of the thread.
            purpose: What for.

        Raises:
            OptionError: The pool has no such lane.
        """
        book = find_lane(self.name, self._lending.ledger, lane)
        view = copy.copy(self)
        view._lane = book.lane  # noqa: SLF001 - it is one of us
        view._whose = (owner, purpose)  # noqa: SLF001 - it is one of us
        # The pool lives as long as its views.
        view._whole = self._whole or self  # noqa: SLF001 - it is one of us
        return view

    _whole: ConnectionPool | None = None

    # Acquire and release

    def get_connection(
        self,
        command_name: object = None,  # noqa: ARG002 - redis-py passes and ignores them
        *keys: Any,  # noqa: ARG002 - as above
        **options: Any,  # noqa: ARG002 - as above
    ) -> Any:
        """Take a connection from the lane, waiting in order of arrival for at most `timeout` seconds.

        Returns:
            An open connection, the caller's until `release`.

        Raises:
            PoolTimeout: The wait ran out; the error lists the holders.
            PoolClosed: The pool closed before or during the wait.
            ConnectionLost: The server is away, and has been for longer than `reconnect_patience`.

        All of these errors are also redis-py's.
        """
        lending = self._lending
        return lending.acquire(lending.ledger.lanes[self._lane], self.timeout, self._whose, find_place())

    def release(self, connection: Any) -> None:
        """Give a connection back; the thread that waits first gets it.

        What is not in use here is left alone: a connection of a parent process, or one that was given back before.
        """
        self._lending.release(connection, wanted=self.owns_connection(connection))
        if self._listener is not None:
            self._listener.dispatch(AfterConnectionReleasedEvent(connection))  # type: ignore[no-untyped-call]  # redis-py has no types here

    def owns_connection(self, connection: Any) -> bool:
        """Tell whether a connection that comes back may be lent again: it is of this process."""
        return bool(connection.pid == os.getpid())

    def make_connection(self) -> Any:
        """Make a connection that is not open yet; to be overridden rather than called."""
        connection = self.connection_class(**self.connection_kwargs)
        if self.cache is None:
            return connection
        return CacheProxyConnection(connection, self.cache, self._lock)  # type: ignore[abstract]  # redis-py makes it so

    def connect_once(self, connection: Any, seconds: float) -> None:
        """Open a connection once; the pool repeats by a rule of its own."""
        single = getattr(connection, "connect_check_health", None)
        if single is None:
            connect_within(connection, seconds, connection.connect)
        else:
            connect_within(connection, seconds, lambda: single(check_health=True, retry_socket_connect=False))

    def expects_pushes(self) -> bool:
        """Tell whether the server may send messages that nobody asked for."""
        return self.cache is not None or bool(self.maint_notifications_enabled())  # type: ignore[no-untyped-call]  # redis-py has no types here

    # Life

    def start(self) -> None:
        """Open the minimum in parallel and wait for it; a closed pool begins anew.

        Raises:
            ConnectionLost: The minimum could not be opened.
        """
        self._lending.start()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Close what is idle, and the connections in use too unless told otherwise; the pool stays usable."""
        self._lending.disconnect(leased=inuse_connections)

    def close(self) -> None:
        """Close the pool: waits end with PoolClosed, all connections are closed. Safe to call again.

        Unlike redis-py's, a closed pool opens nothing any more until `start`.
        """
        if self._whole is None:
            self._lending.close()

    def reset(self) -> None:
        """Begin with no connections; those in use belong to their holders alone."""
        self.pid = os.getpid()
        self._lending.forget()

    def __del__(self) -> None:
        """Do nothing: redis-py counts here what this pool counts by itself."""

    def resize(
        self, maximum: int | None = None, minimum: int | None = None, lanes: Mapping[str, int] | None = None
    ) -> None:
        """Change the limits while the pool is in use.

        Args:
            maximum: New maximum; the lanes keep their proportions unless they are given too.
            minimum: New minimum; an old one above the new maximum is lowered to it.
            lanes: New shares.

        Raises:
            OptionError: A value is outside its bounds, or the shares do not add up.

        What is in use above a new maximum is closed when it is released, never before.
        """
        lending = self._lending
        with lending.lock:
            most = lending.ledger.maximum if maximum is None else maximum
            least, shares = plan_limits(lending.ledger, most, lending.ledger.minimum, minimum, lanes)
            lending.resize(most, least, shares)

    # Logging in

    def re_auth_callback(self, token: TokenInterface) -> None:
        """Log in anew with a token: idle connections before their next use, those in use when they are released."""
        self._lending.expect_login(token)

    # Figures

    def stats(self) -> PoolStats:
        """Return the figures of the pool: counts now, totals, and times of the last one to two minutes."""
        with self._lending.lock:
            return read_stats(self.name, self._lending.ledger, time.monotonic())

    def holders(self, lane: Lane | None = None) -> list[Holder]:
        """List who holds connections, longest first."""
        with self._lending.lock:
            found = self._lending.ledger.holders(time.monotonic(), lane)
        return sorted(found, key=lambda holder: holder.held, reverse=True)


__all__ = ["ConnectionPool"]
