"""The asyncio pool behind its surface: waits, checks, closings, and the loop that it belongs to.

One core is shared by a pool and the views of its lanes. The ledger decides; the core does what it says, keeps the time
for those who wait with one alarm of the clock, and refuses a second event loop.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from headrace.census import Census, Kind
from headrace.pool.checking import find_fault
from headrace.pool.client_errors import ClientConnectionLost, ClientUsageError, pool_closed, pool_timeout
from headrace.pool.holders import tell_holders
from headrace.pool.loops import clock_of, keep_blind, watch_forks
from headrace.pool.opening import Opening
from headrace.pool.transport import abort
from headrace.pool.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from redis.asyncio.connection import AbstractConnection

    from headrace.census import Entry
    from headrace.clock import Alarm, Clock
    from headrace.pool.figures import PoolStats
    from headrace.pool.holders import Holder
    from headrace.pool.lanes import Lane
    from headrace.pool.ledger import LaneBook, Ledger, Member
    from headrace.pool.options import PoolOptions

#: Longest time that a closed connection may take to end; then its socket is dropped, seconds.
CLOSE_TIMEOUT: Final = 1.0


class Wait:
    """One caller that waits for a connection."""

    __slots__ = ("deadline", "future", "since")

    def __init__(self, future: asyncio.Future[Member[AbstractConnection]], since: float, deadline: float) -> None:
        self.future = future
        self.since = since
        self.deadline = deadline

    def accept(self, member: Member[AbstractConnection]) -> bool:
        """Take a connection, unless the caller was cancelled."""
        if self.future.done():
            return False
        self.future.set_result(member)
        return True

    def refuse(self, error: Exception) -> None:
        """End the wait."""
        if not self.future.done():
            self.future.set_exception(error)

    def was_served(self) -> bool:
        """Tell whether a connection was handed over."""
        return self.future.done() and not self.future.cancelled() and self.future.exception() is None


class Core:
    """Do what the ledger of one pool says.

    Args:
        name: Name of the pool.
        ledger: The book.
        options: Limits and durations.
        make: Makes a connection that is not open yet.
        ignores_data: Whether unread bytes on an idle connection are messages of the server and no fault.
        census: Where tasks and connections are entered; the pool's own without one.
        clock: Wakes for deadlines and upkeep; the clock of the loop without one.
        on_event: Told `exhausted` and `recovered`, with the facts.
        tell_stats: Returns the figures for the log.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger[AbstractConnection],
        options: PoolOptions,
        *,
        make: Callable[[], AbstractConnection],
        ignores_data: Callable[[], bool],
        census: Census | None = None,
        clock: Clock | None = None,
        on_event: Callable[[str, dict[str, object]], None] | None = None,
        tell_stats: Callable[[], PoolStats],
    ) -> None:
        self.name = name
        self.ledger = ledger
        self.options = options
        self.make = make
        self._ignores_data = ignores_data
        self._census = census
        self._clock = clock
        self.on_event = on_event
        self.stats = tell_stats
        self.loop: asyncio.AbstractEventLoop | None = None
        self.closed = False
        #: A minimum that begins to hold with the first connection that is lent, or with `start`; then 0.
        self.latent_minimum = 0
        self._opening: Opening | None = None
        self._upkeep: Upkeep | None = None
        self._alarm: Alarm | None = None
        #: When the alarm comes, in time of the monotonic clock.
        self._watched = math.inf
        # Bounded by the maximum, both: one for each open connection, one for each that is being closed.
        self._entries: dict[AbstractConnection, Entry] = {}
        self._closings: set[asyncio.Task[None]] = set()
        # Connections of the parent that a forked child may still release; bounded by what was open at the fork.
        self._foreign: set[AbstractConnection] = set()
        #: Connections in use that log in anew before somebody else gets them; each leaves with its release.
        self.reauth: set[AbstractConnection] = set()
        watch_forks(self)

    # The loop

    def bind(self) -> None:
        """Begin on the running loop, or make sure that it is still the same.

        Raises:
            ClientUsageError: The pool belongs to another loop.
            ClientPoolClosed: The pool is closed.
        """
        loop = asyncio.get_running_loop()
        if self.closed:
            raise pool_closed(self.name)
        if self.loop is loop:
            return
        if self.loop is not None:
            state = "closed by now" if self.loop.is_closed() else "not in the running one"
            raise ClientUsageError(
                f"The pool '{self.name}' belongs to the event loop it was first used in, {state}. Make a pool for each "
                "loop, or call `await pool.aclose()` in the old loop and `await pool.start()` in the new one."
            )
        self.loop = loop
        self._watched = math.inf
        census = self._census = self._census or Census()
        clock = self._clock or clock_of(loop)
        self._alarm = clock.alarm("end waits", self._expire, owner=f"pool {self.name}")
        self._opening = Opening(self, self.ledger, self.options, census, clock)
        self._upkeep = Upkeep(self, self.ledger, self.options, clock)
        self.need()

    async def start(self) -> None:
        """Begin, open the minimum in parallel, and wait for it; a closed pool begins anew.

        Raises:
            ClientConnectionLost: The minimum could not be opened.
            ClientUsageError: The pool belongs to another loop.
        """
        self.closed = False
        self._wake_minimum()
        self.bind()
        self.need()
        opening = self._opening
        if opening is None:
            return
        await opening.opened_all()
        if opening.last_error is not None and self.ledger.lacks():
            error = opening.last_error
            raise ClientConnectionLost(
                f"pool '{self.name}' could not open its minimum of {self.ledger.minimum} connections: "
                f"{str(error) or type(error).__name__}. The pool goes on trying; check that the server runs."
            ) from error

    def need(self) -> None:
        """Open what is wanted by now."""
        if self._opening is not None:
            self._opening.need()

    def _wake_minimum(self) -> None:
        if self.latent_minimum:
            self.ledger.minimum, self.latent_minimum = min(self.latent_minimum, self.ledger.maximum), 0

    # Acquire and release

    async def acquire(
        self,
        book: LaneBook[AbstractConnection],
        timeout: float,
        member: Member[AbstractConnection] | None,
        place: tuple[CodeType, int] | None,
        purpose: tuple[object, str],
    ) -> AbstractConnection:
        """Wait for a connection that works.

        Args:
            book: The lane.
            timeout: Longest wait in seconds.
            member: What was idle and could be taken at once; it is checked here.
            place: Who asks.
            purpose: Owner and purpose that the lane's view names.
        """
        since = time.monotonic()
        deadline = since + timeout
        again = False
        while True:
            if member is None:
                member = await self._wait(book, since, deadline, first=again)
            member.owner = purpose[0] or asyncio.current_task()
            member.purpose, member.place = purpose[1], place
            try:
                fault = await find_fault(
                    member, self.options, suspect_before=self.ledger.suspect_before, ignores_data=self._ignores_data()
                )
            except BaseException:
                self.discard(member.connection, None)
                raise
            if fault is None:
                return member.connection
            self.discard(member.connection, fault)
            if isinstance(fault, TimeoutError):
                # Why: it vanished without a word, and what was verified before it most likely with it.
                self._drop_idle_before(time.monotonic())
            again = True
            member = self.ledger.take(book, time.monotonic())

    async def _wait(
        self, book: LaneBook[AbstractConnection], since: float, deadline: float, *, first: bool
    ) -> Member[AbstractConnection]:
        if self.loop is None or self._alarm is None:
            raise pool_closed(self.name)
        wait = Wait(self.loop.create_future(), since, deadline)
        self.ledger.wait(book, wait, first=first)
        if self.latent_minimum:
            self._wake_minimum()
        self.need()
        self._watch(deadline)
        # Why those who wait too: of several that came at once none may have its place yet, and they fill the share.
        if book.used + len(book.waiters) > book.share and self._upkeep is not None:
            self._upkeep.lane_is_full(book, since)
        try:
            return await wait.future
        except asyncio.CancelledError:
            # Why: between the hand-over and this line the caller may be cancelled; the turn passes to the next.
            if not self.ledger.leave(book, wait) and wait.was_served():
                self.release(wait.future.result().connection)
            raise

    def release(self, connection: AbstractConnection) -> None:
        """Take a connection back; one that is broken or marked is closed, and its place is free."""
        now = time.monotonic()
        connected = connection.is_connected
        if self._foreign and connection in self._foreign:
            self._foreign.discard(connection)
            return
        usable = connected and not self.closed and not connection.should_reconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        member = self.ledger.give_back(connection, now, usable=usable)
        if member is not None:
            if not connected:
                # Why: what broke it may have broken those that are idle.
                self.ledger.suspect_before = now
            self._retire(member)
        if self._upkeep is not None and self._upkeep.exhausted:
            self._upkeep.look_for_recovery(now)

    def discard(self, connection: AbstractConnection, error: Exception | None) -> None:
        """Take back a connection that nobody may use any more."""
        if error is not None:
            self.ledger.count_error(error)
        member = self.ledger.give_back(connection, time.monotonic(), usable=False)
        if member is not None:
            abort(connection)
            self._retire(member)

    # What the parts of the pool call

    def entered(self, connection: AbstractConnection) -> None:
        """Enter a connection that was opened."""
        now = time.monotonic()
        life = self.options.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - jitter, no secret
        if self._census is not None:
            self._entries[connection] = self._census.add(Kind.CONNECTION, f"{self.name}:client", f"pool {self.name}")
        surplus = self.ledger.opened(connection, now, now + life)
        if surplus is not None:
            self._retire(surplus)

    def refuse(self, make_error: Callable[[], Exception], *, waited: float) -> None:
        """End the waits of those who have waited for so many seconds."""
        self.ledger.refuse(make_error, time.monotonic(), waited)

    def retire(self, members: list[Member[AbstractConnection]]) -> None:
        """Close connections that the ledger has taken out."""
        for member in members:
            self._retire(member)

    def _retire(self, member: Member[AbstractConnection]) -> None:
        connection = member.connection
        if self.loop is None or self._census is None or not connection.is_connected:
            self._ended(connection)
            return
        task = self._census.create_task(
            self._close_connection(connection), name="close a connection", owner=f"pool {self.name}"
        )
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _close_connection(self, connection: AbstractConnection) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await connection.disconnect()
        except (TimeoutError, OSError, RedisError):
            abort(connection)
        finally:
            self._ended(connection)

    def _ended(self, connection: AbstractConnection) -> None:
        self.ledger.closed()
        entry = self._entries.pop(connection, None)
        if entry is not None:
            entry.close()
        if not self.closed:
            self.need()

    def _drop_idle_before(self, now: float) -> None:
        for member in [member for member in self.ledger.idle if member.verified < now]:
            self.ledger.retire_idle(member)
            abort(member.connection)
            self._retire(member)

    # Time

    def _watch(self, when: float) -> None:
        """Wake at a time of the monotonic clock, or sooner."""
        if when >= self._watched or self._alarm is None or self.loop is None:
            return
        self._watched = when
        # The loop's clock may be another than the monotonic one.
        self._alarm.set(self.loop.time() + (when - time.monotonic()))

    def _expire(self) -> None:
        now = time.monotonic()
        self._watched = math.inf
        told: dict[Lane, tuple[list[Holder], str]] = {}
        for book, waiter, ahead in self.ledger.expire(now):
            if book.lane not in told:
                # Why: thousands may be late at once; who holds what is the same for all of them.
                holders = self.ledger.holders(now, book.lane)
                told[book.lane] = holders, tell_holders(holders)
            # Why: a lane whose share is used up is full; one that is not waits for the server.
            opening = self._opening.last_error if self._opening is not None and book.used < book.share else None
            waiter.refuse(
                pool_timeout(
                    self.name,
                    str(book.lane),
                    waited=now - waiter.since,
                    share=book.share,
                    used=book.used,
                    ahead=ahead,
                    holders=told[book.lane][0],
                    told=told[book.lane][1],
                    opening_error=opening,
                )
            )
        if self._upkeep is not None:
            self._upkeep.look_for_recovery(now)
        deadline = self.ledger.next_deadline()
        if deadline is not None:
            self._watch(deadline)

    # The end

    async def disconnect(self, *, leased: bool) -> None:
        """Close what is idle, and with `leased` the connections in use too: their holders see them break."""
        for member in list(self.ledger.idle):
            self.ledger.retire_idle(member)
            self._retire(member)
        if leased:
            for connection in list(self.ledger.leased):
                await connection.disconnect(nowait=True)
        while self._closings:
            await asyncio.wait(list(self._closings))

    async def close(self) -> None:
        """Close the pool: waits end with an error, attempts are given up, every connection ends. Safe to call again."""
        self.closed = True
        self.ledger.refuse(lambda: pool_closed(self.name), time.monotonic())
        parts = (self._opening, self._upkeep)
        self._opening, self._upkeep = None, None
        if self._alarm is not None:
            self._alarm.close()
        for part in parts:
            if part is not None:
                await part.close()
        if self.loop is asyncio.get_running_loop():
            await self.disconnect(leased=True)
        for entry in self._entries.values():
            entry.close()
        self._entries.clear()
        self.loop = None

    def abandon(self) -> None:
        """Forget the connections of the parent, in a forked child."""
        connections = [*self.ledger.leased, *(member.connection for member in self.ledger.idle)]
        keep_blind(connections)
        self._foreign.update(connections)
        self.ledger.forget()
        self._entries.clear()
        self._closings.clear()
        self._census = self._clock = None
        self.loop = None
        self._opening, self._upkeep, self._alarm = None, None, None
