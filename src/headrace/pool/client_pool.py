"""The asyncio connection pool: a drop-in for redis-py's that is bounded, fair and tells what it does.

    pool = ConnectionPool.from_url("redis://127.0.0.1:6379/0", max_connections=20, min_connections=4)
    client = redis.asyncio.Redis(connection_pool=pool)

It is useful without anything else of Headrace. `headrace.pool.sync.ConnectionPool` is the same for threads.
"""

from __future__ import annotations

import asyncio
import copy
import time
from typing import TYPE_CHECKING, Any, Self

import redis.asyncio
from redis.asyncio.connection import Connection
from redis.event import AsyncAfterConnectionReleasedEvent

from headrace.pool.client_errors import ClientOptionError
from headrace.pool.core import Core
from headrace.pool.figures import PoolStats, read_stats
from headrace.pool.holders import Holder, find_place
from headrace.pool.limits import DEFAULT_MAXIMUM, find_lane, make_ledger, plan_limits
from headrace.pool.options import LONGEST_WAIT, read_number, take_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from redis.asyncio.connection import AbstractConnection
    from redis.asyncio.retry import Retry
    from redis.auth.token import TokenInterface
    from redis.event import EventDispatcherInterface

    from headrace.census import Census
    from headrace.clock import Clock
    from headrace.histogram import Histogram
    from headrace.pool.lanes import Lane
    from headrace.pool.ledger import LaneBook

_now = time.monotonic
_running_loop = asyncio._get_running_loop  # noqa: SLF001 - what `get_running_loop` is without the exception


class ConnectionPool(redis.asyncio.ConnectionPool):
    """A bounded, fair pool for `redis.asyncio.Redis(connection_pool=...)`.

    It never holds more than `max_connections`, counting those being opened and closed; it serves waiters first-in
    first-out, each until its timeout; it keeps `min_connections` open; it closes what was idle for long; and while the
    server is away it makes one series of attempts for all waiters. It belongs to one event loop.

    Args:
        connection_class: As for redis-py.
        max_connections: Most connections, 1..10000.
        min_connections: Connections opened in parallel at the start and kept, 0..max_connections.
        timeout: Longest wait for a connection in seconds, up to 600; None for 600.
        lanes: Shares of `control`, `blocking`, `jobs` and `user` that add up to `max_connections`; without any, all
            belong to `user`. `lane` returns a pool that draws from one of them.
        name: Shown in errors, logs and figures.
        census: Where connections and tasks are entered, for a pool that belongs to an app.
        clock: The app's clock.
        on_event: Told `exhausted` and `recovered`, with the facts.
        queue_class: Accepted and not used, as redis-py's BlockingConnectionPool has it.
        **kwargs: The further options of `PoolOptions`, and what redis-py's connections take.

    Raises:
        OptionError: An option is outside its bounds.
    """

    def __init__(
        self,
        connection_class: type[AbstractConnection] = Connection,
        max_connections: int | None = None,
        *,
        min_connections: int = 0,
        timeout: float | None = 20.0,
        lanes: Mapping[str, int] | None = None,
        name: str = "pool",
        census: Census | None = None,
        clock: Clock | None = None,
        on_event: Callable[[str, dict[str, object]], None] | None = None,
        queue_class: object = None,
        **kwargs: Any,
    ) -> None:
        del queue_class
        options = take_options(kwargs, timeout)
        maximum = DEFAULT_MAXIMUM if max_connections is None else max_connections
        ledger = make_ledger(maximum, read_number("min_connections", min_connections), lanes)
        self._core = Core(
            name,
            ledger,
            options,
            make=self.make_connection,
            ignores_data=self.maint_notifications_enabled,
            census=census,
            clock=clock,
            on_event=on_event,
            tell_stats=self.stats,
        )
        self._book: LaneBook[AbstractConnection] = next(reversed(ledger.lanes.values()))
        self._whose: tuple[object, str] = (None, "")
        self.timeout = options.timeout
        self.name = name
        #: Who wants to hear of releases; redis-py's own listener logs in anew, which is done here.
        self._listener: EventDispatcherInterface | None = kwargs.get("event_dispatcher")
        super().__init__(connection_class=connection_class, max_connections=maximum, **kwargs)

    # What redis-py's pool keeps as attributes, read from the ledger.

    @property
    def max_connections(self) -> int:
        """Most connections."""
        return self._core.ledger.maximum

    @max_connections.setter
    def max_connections(self, value: int) -> None:
        # The constructor of redis-py's pool sets what is set already.
        if value != self._core.ledger.maximum:
            self._resize(value, None, None)

    @property
    def min_connections(self) -> int:
        """Connections that are kept open."""
        return self._core.ledger.minimum or self._core.latent_minimum

    @property
    def _available_connections(self) -> list[AbstractConnection]:
        return [member.connection for member in self._core.ledger.idle]

    @_available_connections.setter
    def _available_connections(self, value: Iterable[AbstractConnection]) -> None:
        # The constructor of redis-py's pool empties what is empty.
        del value

    @property
    def _in_use_connections(self) -> set[AbstractConnection]:
        return set(self._core.ledger.leased)

    @_in_use_connections.setter
    def _in_use_connections(self, value: Iterable[AbstractConnection]) -> None:
        del value

    # Lanes

    def lane(self, lane: str, *, owner: str = "", purpose: str = "") -> Self:
        """Return a pool that draws from one lane, for a client of its own.

        It is the same pool: the same connections, limits and figures. Closing it does nothing; close the pool itself.

        Args:
            lane: One of the lanes that the pool has.
            owner: Who its connections are said to be held by; without one, the name of the asyncio task.
            purpose: What for.

        Raises:
            OptionError: The pool has no such lane.
        """
        book = find_lane(self.name, self._core.ledger, lane)
        view = copy.copy(self)
        view._book = book  # noqa: SLF001 - it is one of us
        view._whose = (owner or None, purpose)  # noqa: SLF001 - it is one of us
        view._is_view = True  # noqa: SLF001 - it is one of us
        return view

    _is_view = False

    # Acquire and release

    async def get_connection(
        self,
        command_name: object = None,  # noqa: ARG002 - redis-py passes and ignores it
        *keys: Any,  # noqa: ARG002 - redis-py passes and ignores them
        **options: Any,  # noqa: ARG002 - redis-py passes and ignores them
    ) -> AbstractConnection:
        """Take a connection from the lane, waiting in order of arrival for at most `timeout` seconds.

        Returns:
            An open connection, the caller's until `release`.

        Raises:
            PoolTimeout: The wait ran out; the error lists the holders.
            PoolClosed: The pool closed before or during the wait.
            ConnectionLost: The server is away, and has been for longer than `reconnect_patience`.
            UsageError: The pool belongs to another event loop.

        Cancelling the wait passes the turn to the next. All of these errors are also redis-py's.
        """
        core = self._core
        if core.loop is not _running_loop() or core.closed:
            core.bind()
        ledger, book, now = core.ledger, self._book, _now()
        deadline = now + self.timeout
        member = ledger.take(book, now)
        place = find_place()
        if member is None:
            member = await core.wait_turn(book, now, deadline)
        else:
            ledger.waits.current.zeros += 1
        connection = member.connection
        # The usual case, without another coroutine: it was used a short while ago, and nothing has come in since.
        if (
            member.verified > ledger.suspect_before
            and member.since - member.verified < core.options.check_after
            and connection.is_connected
            and not await _has_data(connection)
        ):
            owner, member.purpose = self._whose
            member.owner = owner or asyncio.current_task()
            member.place = place
            return connection
        return await core.acquire(book, deadline, member, place, self._whose)

    async def release(self, connection: AbstractConnection) -> None:
        """Give a connection back; whoever waits first gets it.

        Raises:
            UsageError: It was not acquired from this pool, or was released before.
        """
        core = self._core
        try:
            if core.reauth and connection in core.reauth:
                await self._log_in_again(connection)
        finally:
            core.release(connection)
        if self._listener is not None:
            await self._listener.dispatch_async(AsyncAfterConnectionReleasedEvent(connection))  # type: ignore[no-untyped-call]  # redis-py has no types here

    def can_get_connection(self) -> bool:
        """Tell whether a connection could be had at once."""
        ledger, book = self._core.ledger, self._book
        return not book.waiters and book.used < book.share and (bool(ledger.idle) or not ledger.is_full())

    def get_available_connection(self) -> AbstractConnection:
        """Refuse: taking a connection without waiting would pass those who wait.

        Raises:
            UsageError: Always.
        """
        raise ClientOptionError("get_available_connection() would pass the waiters. Use `await get_connection()`.")

    # Life

    async def start(self) -> None:
        """Open the minimum in parallel and wait for it; a closed pool begins anew.

        Raises:
            ConnectionLost: The minimum could not be opened.
            UsageError: The pool belongs to another event loop.
        """
        await self._core.start()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Close what is idle, and the connections in use too unless told otherwise; the pool stays usable."""
        if self._core.loop is not None:
            await self._core.disconnect(leased=inuse_connections)

    async def aclose(self) -> None:
        """Close the pool: waits end with PoolClosed, all connections are closed. Safe to call again.

        Unlike redis-py's, a closed pool opens nothing any more until `start`.
        """
        if self._is_view:
            return
        await self._on_close()
        await self._core.close()

    def reset(self) -> None:
        """Drop all connections: idle ones now, those in use when they are released."""
        self._core.drop()

    def __del__(self) -> None:
        """Do nothing: redis-py counts here what this pool counts by itself."""

    async def resize(
        self, maximum: int | None = None, minimum: int | None = None, lanes: Mapping[str, int] | None = None
    ) -> None:
        """Change the limits while the pool is in use.

        Args:
            maximum: New maximum; the lanes keep their proportions unless they are given too.
            minimum: New minimum, opened at once; an old one above the new maximum is lowered to it.
            lanes: New shares.

        Raises:
            OptionError: A value is outside its bounds, or the shares do not add up.

        What is in use above a new maximum is closed when it is released, never before.
        """
        self._resize(self.max_connections if maximum is None else maximum, minimum, lanes)

    def _resize(self, maximum: int, minimum: int | None, lanes: Mapping[str, int] | None) -> None:
        core = self._core
        least, shares = plan_limits(core.ledger, maximum, self.min_connections, minimum, lanes)
        if core.latent_minimum:
            core.latent_minimum, least = least, 0
        core.ledger.resize(maximum, least, shares)
        core.resized()

    def set_retry(self, retry: Retry) -> None:
        """Give every connection, open or to come, another policy of repeating."""
        self.connection_kwargs["retry"] = retry
        super().set_retry(retry)

    def shrink(self) -> int:
        """Close the idle connections above the minimum now, and return how many those are."""
        core = self._core
        if core.loop is None:
            return 0
        surplus = core.ledger.retire_surplus(_now(), 0.0)
        core.retire(surplus)
        return len(surplus)

    # Logging in

    async def re_auth_callback(self, token: TokenInterface) -> None:
        """Log in anew with a token: idle connections before their next use, those in use when they are released."""
        core = self._core
        core.ledger.suspect_before = _now()
        for member in core.ledger.idle:
            member.connection.set_re_auth_token(token)
        for connection in core.ledger.leased:
            connection.set_re_auth_token(token)
            core.reauth.add(connection)

    async def _log_in_again(self, connection: AbstractConnection) -> None:
        self._core.reauth.discard(connection)
        # Until it has answered: whoever cancels this, or fails in a way of his own, leaves an answer still to come.
        connection.mark_for_reconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        try:
            async with asyncio.timeout(self._core.options.check_timeout):
                await connection.re_auth()  # type: ignore[no-untyped-call]  # redis-py has no types here
            connection.reset_should_reconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        except (TimeoutError, OSError, redis.RedisError):
            await connection.disconnect(nowait=True)

    # Figures

    def stats(self) -> PoolStats:
        """Return the figures of the pool: counts now, totals, and times of the last one to two minutes."""
        return read_stats(self.name, self._core.ledger, _now())

    def times(self) -> dict[str, Histogram]:
        """Return all times since the pool was made: `wait` and `response`, as in `PoolStats`."""
        ledger = self._core.ledger
        return {"wait": ledger.waits.ever(), "response": ledger.responses.ever()}

    def holders(self, lane: Lane | None = None) -> list[Holder]:
        """List who holds connections, longest first."""
        return sorted(self._core.ledger.holders(_now(), lane), key=lambda holder: holder.held, reverse=True)


async def _has_data(connection: AbstractConnection) -> bool:
    try:
        return await connection.can_read()
    except (OSError, redis.RedisError):
        return True


__all__ = ["LONGEST_WAIT", "ConnectionPool"]
