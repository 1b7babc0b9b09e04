"""The pool of one app: the links of the engine, and connections for redis-py clients, under one maximum.

A link is shared by all callers of its purpose (see `headrace.pool.link`), so an app needs few of them: one for users,
one for control, and for each worker one for jobs and one that blocks. What the links leave of the lanes is lent to
redis-py clients, as by any `ConnectionPool`::

    client = redis.asyncio.Redis(connection_pool=app.pool)
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection

from headrace.deadlines import Deadlines
from headrace.errors import PoolClosed, PoolTimeout
from headrace.pool.client_pool import ConnectionPool
from headrace.pool.deaf import DeafWatch
from headrace.pool.holders import tell_holders
from headrace.pool.lanes import Lane, app_shares
from headrace.pool.link import Link
from headrace.pool.primary import PrimaryConnection, PrimarySSLConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census
    from headrace.clock import Clock
    from headrace.pool.address import Address
    from headrace.pool.figures import PoolStats
    from headrace.pool.holders import Holder


class Pool(ConnectionPool):
    """Own the links of one app and lend connections; both together never pass `maximum`.

    Args:
        address: Where the server is.
        maximum: Most connections, 4..10000, divided among the lanes by `headrace.pool.lanes.app_shares`.
        minimum: Connections kept open once one was lent, links included; `start` opens them at once.
        census: Where open connections are counted.
        client_name: Start of the names in the server's CLIENT LIST.
        clock: The app's clock; the pool's own without one.
        timeout: Longest wait for a connection to lend, seconds.
        stats_interval: A log line `pool stats` comes each interval, seconds; 0 for never.
        on_event: Told `exhausted` and `recovered`, with the facts.
    """

    def __init__(
        self,
        address: Address,
        *,
        maximum: int,
        minimum: int = 0,
        census: Census,
        client_name: str,
        clock: Clock | None = None,
        timeout: float = 10.0,
        stats_interval: float = 0.0,
        on_event: Callable[[str, dict[str, object]], None] | None = None,
    ) -> None:
        connection_class, kwargs = connection_of(address)
        super().__init__(
            connection_class=connection_class,
            max_connections=maximum,
            timeout=timeout,
            lanes={str(lane): share for lane, share in app_shares(maximum).items()},
            name="app",
            census=census,
            clock=clock,
            on_event=on_event,
            stats_interval=stats_interval,
            client_name=f"{client_name}:user:lent",
            **kwargs,
        )
        self.address = address
        self._core.latent_minimum = min(minimum, maximum)
        self._census = census
        self._deadlines = None if clock is None else Deadlines(clock, "end calls", "pool app")
        self._client_name = client_name
        # Bounded by the maximum.
        self._links: list[Link] = []
        self._deaf = DeafWatch(self._links, census)
        self._closed_calls = self._closed_opened = self._closed_failed = 0
        self._closed = False

    async def begin(self, *, at_once: bool) -> None:
        """Begin to look after the connections; with `at_once`, open the minimum now instead of with the first loan.

        Raises:
            ConnectionLost: The minimum could not be opened.
        """
        if at_once:
            await self.start()
        else:
            self._core.bind()

    @property
    def maximum(self) -> int:
        """Most connections."""
        return self.max_connections

    def link(
        self,
        lane: Lane,
        purpose: str,
        *,
        owner: str,
        on_push: Callable[[bytes, bytes], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        address: Address | None = None,
    ) -> Link:
        """Return a new link; it opens on first use and belongs to the caller until `release`.

        With an `address` it leads there, such as to one node of a cluster, and counts as any other.

        Raises:
            PoolTimeout: The lane has no place left; the error names the holders.
            PoolClosed: The pool was closed.
        """
        if self._closed:
            raise PoolClosed(f"The pool of '{self._client_name}' is closed. Open the app again.")
        unused = self._core.ledger.yield_place(lane)
        if unused is not None:
            # The socket is closed before the link, which opens in a task of its own, makes another.
            self._core.retire([unused], drop=True)
        if not self._core.ledger.reserve(lane):
            raise self._no_place(lane)
        name = f"{self._client_name}:{lane}:{purpose}".replace(" ", "-")
        link = Link(
            address or self.address,
            lane,
            name=name,
            census=self._census,
            owner=owner,
            on_push=on_push,
            on_reopen=on_reopen,
            on_lost=on_lost,
            # Why not on this lane: how long an idle worker waits for jobs says nothing about the server.
            on_roundtrip=None if lane is Lane.BLOCKING else self._roundtrip,
            on_error=self._core.ledger.count_name,
            on_unanswered=self._deaf.note,
            deadlines=self._deadlines,
        )
        self._links.append(link)
        return link

    async def release(self, connection: AbstractConnection | Link) -> None:
        """Give back a lent connection, or close a link and free its place; a link may be released again."""
        if not isinstance(connection, Link):
            await super().release(connection)
            return
        link = connection
        if link not in self._links:
            await link.close()
            return
        self._links.remove(link)
        self._closed_calls += link.calls_total
        self._closed_opened += link.opened_total
        self._closed_failed += link.failed_total
        await link.close()
        self._core.ledger.unreserve(link.lane, time.monotonic())
        self._core.need()

    def stats(self) -> PoolStats:
        """Count links and lent connections by what they do now; an open link with replies to come is active."""
        lent = super().stats()
        links = self._links
        is_open = [link for link in links if link.is_open]
        active = sum(1 for link in is_open if link.outstanding)
        return dataclasses.replace(
            lent,
            minimum=lent.minimum or self._core.latent_minimum,
            total=lent.total + len(is_open),
            active=lent.active + active,
            idle=lent.idle + len(is_open) - active,
            opening=lent.opening + sum(1 for link in links if link.is_opening),
            waiting=lent.waiting + sum(link.waiting for link in links if not link.is_open),
            opened_total=lent.opened_total + self._closed_opened + sum(link.opened_total for link in links),
            closed_total=lent.closed_total
            + self._closed_opened
            + sum(link.opened_total - link.is_open for link in links),
            failed_total=lent.failed_total + self._closed_failed + sum(link.failed_total for link in links),
            calls_total=lent.calls_total + self._closed_calls + sum(link.calls_total for link in links),
        )

    async def close(self) -> None:
        """Close all links and connections; calls under way end with PoolClosed. Safe to call again."""
        self._closed = True
        await self._deaf.close()
        while self._links:
            await self.release(self._links[-1])
        await self.aclose()

    def __repr__(self) -> str:
        """Return the figures, without credentials."""
        return f"<Pool {self.address} {self.stats().total}/{self.maximum}>"

    def _roundtrip(self, seconds: float) -> None:
        self._core.ledger.responses.current.record(seconds)

    def _no_place(self, lane: Lane) -> PoolTimeout:
        book = self._core.ledger.lanes[lane]
        owners = ", ".join(sorted({f"'{link.owner}' ({link.name})" for link in self._links if link.lane is lane})[:8])
        holders: list[Holder] = self.holders(lane)
        lent = f", and {tell_holders(holders)}" if holders else ""
        text = f"lane '{lane}' has no connection left: {book.used} of {book.share} in use by {owners or 'none'}{lent}. "
        text += f"Raise REDIS_MAX_CONNECTIONS, of which the lane has its share ({self.maximum} in all), or run fewer "
        return PoolTimeout(text + "workers in this process.", holders=holders)


def connection_of(address: Address) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """Return the class and the arguments of redis-py's connections to an address."""
    kwargs: dict[str, Any] = {"db": address.database, "username": address.username, "password": address.password}
    if address.path is not None:
        return UnixDomainSocketConnection, {**kwargs, "path": address.path}
    if address.tls:
        kwargs.update(address.tls_options)
    if address.sentinels is not None:
        return PrimarySSLConnection if address.tls else PrimaryConnection, {**kwargs, "address": address}
    return SSLConnection if address.tls else Connection, {**kwargs, "host": address.host, "port": address.port}
