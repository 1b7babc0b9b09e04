"""A connection that opens itself again: back-off with jitter, one opening for all callers, every wait bounded.

A link carries what one lane sends. Callers share it, since the server answers in order. When the connection breaks, the
calls under way end with `ConnectionLost` (what took effect is unknown to the pool; the caller knows whether to send
again) and the next call opens the connection anew.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.census import Kind
from headrace.errors import CommandRefused, ConnectionLost, HeadraceError, PoolClosed
from headrace.pool.backoff import Backoff
from headrace.pool.connection import Connection, is_refused_subscribe
from headrace.pool.lanes import Lane
from headrace.pool.sentinel import locate
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.census import Census, Entry
    from headrace.deadlines import Deadlines
    from headrace.pool.address import Address

__all__ = ["OPEN_TIMEOUT", "Lane", "Link"]

#: Longest time of one attempt to open, seconds; sentinels add `headrace.pool.sentinel.LOCATE_TIMEOUT`.
OPEN_TIMEOUT: Final = 5.0


class Link:
    """One connection of a lane, opened on first use and again after each break.

    Args:
        address: Where the server is.
        lane: Share of the pool that the connection belongs to.
        name: Shown by the census and by the server's CLIENT LIST.
        census: Where the open connection is counted.
        owner: Who asked for the link.
        on_push: Called with each message of a subscribed channel: channel and data.
        on_reopen: Called each time the connection was opened again after a break.
        on_lost: Called each time an open connection broke.
        on_roundtrip: Called with the seconds of each call that got its replies, the wait for a connection included.
        on_error: Called with the name of a class: for each call that failed, that of its error; for each opening that
            failed, that of its cause, such as ConnectionRefusedError.
        on_unanswered: Called when a call got no reply in time and its connection was dropped; what it returns is called
            when the server has answered on a new connection.
        deadlines: Watches the timeouts of calls; without it, each call has a timer.
    """

    def __init__(
        self,
        address: Address,
        lane: Lane,
        *,
        name: str,
        census: Census,
        owner: str,
        on_push: Callable[[bytes, bytes], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        on_roundtrip: Callable[[float], None] | None = None,
        on_error: Callable[[str], None] | None = None,
        on_unanswered: Callable[[Link], Callable[[], None]] | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.address = address
        self.lane = lane
        self.name = name
        self.owner = owner
        self.on_roundtrip = on_roundtrip
        self.on_error = on_error
        self.opened_total = 0
        self.failed_total = 0
        self.calls_total = 0
        self.answered_total = 0
        self.waiting = 0
        #: Why the latest attempt to open a connection failed; empty since one succeeded.
        self.last_failure = ""
        self._within = asyncio.timeout if deadlines is None else deadlines.within
        self._census = census
        self._entry: Entry | None = None
        self._on_push = on_push
        self._on_reopen = on_reopen
        self._on_lost = on_lost
        self._on_unanswered = on_unanswered
        self._answered_anew: Callable[[], None] | None = None
        #: Channels that the open connection is subscribed to, and those it is to be, each bounded by the queues served.
        self._channels: set[str] = set()
        self._confirmed: set[str] = set()
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._backoff = Backoff()
        self._closed = False
        if address.sentinels is not None:
            address.sentinels.followers.add(self)

    @property
    def is_open(self) -> bool:
        """Whether a connection is there."""
        return self._connection is not None

    @property
    def place(self) -> Address | None:
        """Where the open connection leads: with sentinels, the primary that they named."""
        return None if self._connection is None else self._connection.address

    @property
    def is_opening(self) -> bool:
        """Whether a connection is being opened."""
        return self._opening is not None

    @property
    def outstanding(self) -> int:
        """Replies that are still to come."""
        return 0 if self._connection is None else self._connection.outstanding

    async def roundtrip(
        self, payload: bytes, count: int, *, timeout: float = 30.0, subscribes: bool = False
    ) -> list[Any]:
        """Send packed commands and return their replies; error replies stand in the list.

        Args:
            payload: Packed commands.
            count: How many they are.
            timeout: Longest wait in seconds for an open connection and all replies, 0 < timeout <= 3600.
            subscribes: A SUBSCRIBE, which is not counted, stands in front of them; see `Connection.submit_subscribe`.

        Raises:
            ConnectionLost: The connection could not be opened or broke, or the replies did not come in time; a
                connection whose replies do not come is dropped, since what comes later could not be told apart.
            PoolClosed: The link was closed.
        """
        self.calls_total += 1
        self.waiting += 1
        began = time.perf_counter() if self.on_roundtrip is not None else 0.0
        try:
            async with self._within(timeout):
                connection = self._connection
                if connection is None or not connection.is_open:
                    connection = await self._open()
                submit = connection.submit_subscribe if subscribes else connection.submit
                replies = await submit(payload, count)
        except TimeoutError as error:
            lost = self._out_of_time(timeout)
            if self._connection is not None and self._connection.outstanding:
                if self._on_unanswered is not None:
                    self._answered_anew = self._on_unanswered(self)
                self._drop(self._connection)
            self._note_error(error)
            raise lost from error
        except HeadraceError as error:
            self._note_error(error)
            raise
        finally:
            self.waiting -= 1
        self.answered_total += 1
        if self.on_roundtrip is not None:
            self.on_roundtrip(time.perf_counter() - began)
        return replies

    async def subscribe(self, channels: Iterable[str], *, timeout: float = 10.0) -> None:
        """Subscribe to channels, now and after each reopening; a link with channels opens again by itself.

        Raises:
            ConnectionLost: The connection could not be opened or broke.
            CommandRefused: This user may not listen to one of them; then none of them is subscribed.
        """
        names = list(channels)
        self._channels.update(names)
        # Why: what another call has only asked for is asked for again, or this call might return before it is there.
        fresh = [channel for channel in names if channel not in self._confirmed]
        if fresh:
            # Why: the answers to SUBSCRIBE come as push messages; the reply to a PING behind it tells that it is done.
            call = pack_command("SUBSCRIBE", *fresh) + pack_command("PING")
            try:
                self._check_subscribed(await self.roundtrip(call, 1, timeout=timeout, subscribes=True))
            except CommandRefused:
                self._channels.difference_update(fresh)
                raise
            self._confirmed.update(fresh)

    def follow(self, host: str, port: int) -> None:
        """Leave any other place than this one; calls under way there end with ConnectionLost."""
        connection = self._connection
        if connection is not None and (connection.address.host, connection.address.port) != (host, port):
            self._drop(connection)

    def drop(self) -> None:
        """Leave the open connection; calls under way there end with ConnectionLost."""
        if self._connection is not None:
            self._drop(self._connection)

    async def close(self) -> None:
        """Close the connection; calls under way end with PoolClosed. Safe to call again."""
        self._closed = True
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        if self._entry is not None:
            self._entry.close()
            self._entry = None

    async def _open(self) -> Connection:
        if self._closed:
            raise PoolClosed(f"The link '{self.name}' to {self.address} is closed. Open the app again.")
        opening = self._opening or self._start_opening()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError as error:
            if self._was_closed() and opening.cancelled() and not _is_cancelling():
                text = f"The link '{self.name}' to {self.address} was closed while it was being opened."
                raise PoolClosed(text) from error
            raise

    async def _reopen(self) -> Connection:
        self._backoff.begin()
        try:
            # Why: bounded by those who wait; the loop ends when the last of them gave up. Channels wait for good.
            while True:
                await asyncio.sleep(self._backoff.next_wait())
                try:
                    connection, wanted = await self._connect()
                except (ConnectionLost, TimeoutError) as error:
                    self.failed_total += 1
                    self.last_failure = str(error) or type(error).__name__
                    self._note_error(error.__cause__ or error)
                    self.address.doubt()
                    if not self.waiting and not self._channels:
                        raise
                    continue
                self._connection = connection
                self._confirmed = set(wanted)
                self._entry = self._census.add(Kind.CONNECTION, self.name, self.owner)
                self.opened_total += 1
                self.last_failure = ""
                self._backoff.opened()
                if self.opened_total > 1 and self._on_reopen is not None:
                    self._on_reopen()
                answered, self._answered_anew = self._answered_anew, None
                if answered is not None:
                    answered()
                return connection
        finally:
            self._opening = None

    async def _connect(self) -> tuple[Connection, list[str]]:
        """Find the server, open a connection, subscribe it, and return it with its channels."""
        sentinels = self.address.sentinels
        switches = 0 if sentinels is None else sentinels.switches
        place = await locate(self.address)
        connection = Connection(
            place, name=self.name, on_push=self._pushed if self._on_push else None, on_lost=self._lost
        )
        try:
            await connection.open(timeout=OPEN_TIMEOUT)
            wanted = sorted(self._channels)
            if wanted:
                subscribe = pack_command("SUBSCRIBE", *wanted) + pack_command("PING")
                self._check_subscribed(await asyncio.wait_for(connection.submit_subscribe(subscribe, 1), OPEN_TIMEOUT))
        except BaseException:
            connection.abort()
            raise
        if not connection.is_open:
            raise ConnectionLost(f"{place} closed the connection '{self.name}' at once. It is tried again.")
        if sentinels is not None and sentinels.switches != switches:
            connection.abort()
            raise ConnectionLost(f"{place} was replaced while '{self.name}' was being opened. It is tried again.")
        return connection, wanted

    def _check_subscribed(self, replies: list[Any]) -> None:
        if is_refused_subscribe(replies[0]):
            text = f"{self.address} refused SUBSCRIBE on '{self.name}': {str(replies[0]).rstrip('.')}. Give this user "
            raise CommandRefused(text + "the channels below the prefix, as with ACL SETUSER app '&headrace:*'.")

    def _pushed(self, message: list[Any]) -> None:
        if self._on_push is not None and message[0] == b"message":
            self._on_push(message[1], message[2])

    def _drop(self, connection: Connection) -> None:
        connection.abort()
        self._lost(ConnectionLost("dropped"))

    def _lost(self, _error: Exception) -> None:
        self._connection = None
        self._confirmed.clear()
        self.failed_total += 1
        if self._entry is not None:
            self._entry.close()
            self._entry = None
        if self._channels and not self._closed and self._opening is None:
            # Why: nobody may have a call to make, while the messages of the channels are awaited all the same.
            _ = self._start_opening()
        if self._on_lost is not None and not self._closed:
            self._on_lost()

    def _out_of_time(self, timeout: float) -> ConnectionLost:
        call = f"on '{self.name}' (lane {self.lane}) within {timeout:g} s"
        if self._connection is None and self.last_failure:
            # Why: what the caller has to know is why no connection could be opened.
            return ConnectionLost(f"{self.last_failure} The call got no connection {call}.")
        text = f"{self.address} did not answer {call}"
        return ConnectionLost(text + ". Check that the server runs and is not blocked by a slow command.")

    def _note_error(self, error: BaseException) -> None:
        if self.on_error is not None:
            self.on_error(type(error).__name__)

    def _was_closed(self) -> bool:
        return self._closed

    def _start_opening(self) -> asyncio.Task[Connection]:
        self._opening = self._census.create_task(
            self._reopen(), name=f"open {self.name}", owner=self.owner, expected=(HeadraceError,)
        )
        return self._opening


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
