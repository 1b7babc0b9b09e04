"""The asyncio pool behind its surface: waits, checks, closings, and the loop that it belongs to.

One core is shared by a pool and the views of its lanes. The ledger decides; the core does what it says, keeps the time
for those who wait with one alarm of the clock, and refuses a second event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from typing import TYPE_CHECKING

from headrace.census import Census
from headrace.pool.checking import find_fault
from headrace.pool.client_errors import ClientUsageError, minimum_lacking, no_share, pool_closed
from headrace.pool.closing import Closing, drop_all
from headrace.pool.ledger import BROKEN
from headrace.pool.loops import clock_of, keep_blind, watch_forks
from headrace.pool.opening import Opening
from headrace.pool.transport import abort, bar, leave
from headrace.pool.upkeep import Upkeep
from headrace.pool.waits import Deadlines, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

    from redis.asyncio.connection import AbstractConnection

    from headrace.clock import Clock
    from headrace.pool.figures import PoolStats
    from headrace.pool.ledger import LaneBook, Ledger, Member
    from headrace.pool.options import PoolOptions


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
        self._closing: Closing | None = None
        self._upkeep: Upkeep | None = None
        self._deadlines: Deadlines | None = None
        self._ending: asyncio.Task[None] | None = None
        self._finalizer: weakref.finalize[..., Core] | None = None
        # What a holder may still release although it is not lent any more: those that were in use when the pool closed,
        # and those of the parent of a forked child. Weak, so that a holder who forgets one costs nothing.
        self._outlived: weakref.WeakSet[AbstractConnection] = weakref.WeakSet()
        self._inherited: weakref.WeakSet[AbstractConnection] = weakref.WeakSet()
        self._any_over = False  # Measured: to look into both would cost a release more than its other checks.
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
            where = "here, since that loop is closed" if self.loop.is_closed() else "there, and start it here"
            raise ClientUsageError(
                f"The pool '{self.name}' belongs to the event loop it was first used in, and not to the running one. "
                f"Make a pool for each loop, or call `await pool.aclose()` {where}, and `await pool.start()`."
            )
        self.loop = loop
        census = self._census or Census()
        clock = self._clock or clock_of(loop)
        self._deadlines = Deadlines(self.name, self.ledger, clock, lambda: opening.last_error, self._looked)
        self._closing = closing = Closing(self.name, self.ledger, census, loop, self.need)
        self._opening = opening = Opening(self, self.ledger, self.options, census, clock)
        self._upkeep = Upkeep(self, self.ledger, self.options, clock)
        runners = (self._deadlines.alarm, *opening.runners, *self._upkeep.runners)
        self._finalizer = weakref.finalize(self, drop_all, self.name, loop, runners, closing.entries)
        self._finalizer.atexit = False
        self.need()

    async def start(self) -> None:
        """Begin, open the minimum in parallel, and wait for it; a closed pool begins anew.

        Raises:
            ClientConnectionLost: The minimum could not be opened.
            ClientUsageError: The pool belongs to another loop.
        """
        while self._ending is not None:
            await asyncio.wait([self._ending])
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
            raise minimum_lacking(self.name, self.ledger.minimum, error) from error

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
        deadline: float,
        member: Member[AbstractConnection] | None,
        place: tuple[CodeType, int] | None,
        purpose: tuple[object, str],
    ) -> AbstractConnection:
        """Check the connection of a caller, and wait for another until there is one that works.

        Args:
            book: The lane.
            deadline: When the caller gives up, in time of the monotonic clock.
            member: What was taken at once, or handed over.
            place: Who asks.
            purpose: Owner and purpose that the lane's view names.
        """
        since = time.monotonic()
        while True:
            if member is None:
                member = await self.wait_turn(book, since, deadline, first=True)
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
            member = self.ledger.take(book, time.monotonic())

    async def wait_turn(
        self, book: LaneBook[AbstractConnection], since: float, deadline: float, *, first: bool = False
    ) -> Member[AbstractConnection]:
        """Wait in a lane, at its end or, for who was handed a dead connection, at its front."""
        deadlines, upkeep = self._deadlines, self._upkeep
        if self.closed or self.loop is None or deadlines is None or upkeep is None:
            raise pool_closed(self.name)
        if book.share <= 0:
            raise no_share(self.name, book.lane)
        wait = Wait(self.loop.create_future(), since, deadline)
        self.ledger.wait(book, wait, first=first)
        if self.latent_minimum:
            self._wake_minimum()
        self.need()
        deadlines.watch(deadline)
        upkeep.somebody_waits(since)
        try:
            return await wait.future
        except asyncio.CancelledError:
            # Why: between the hand-over and this line the caller may be cancelled; the turn passes to the next.
            if not self.ledger.leave(book, wait) and wait.was_served():
                self.release(wait.future.result().connection)
            self._looked(time.monotonic())
            raise

    def resized(self) -> None:
        """Do what new limits make necessary."""
        now = time.monotonic()
        if self.loop is None or self.closed:
            return
        self.retire(self.ledger.retire_surplus(now, self.options.idle_timeout))
        for book in self.ledger.lanes.values():
            if book.share <= 0:
                self.ledger.refuse_lane(book, lambda lane: no_share(self.name, lane.lane))
        self.ledger.serve(now)
        self.need()

    def release(self, connection: AbstractConnection) -> None:
        """Take a connection back; one that is broken or marked is closed, and its place is free."""
        now = time.monotonic()
        connected = connection.is_connected
        closing = self._closing
        if closing is not None and connected and closing.lost and connection in closing.lost:
            connected = not closing.is_lost(connection)
        if self._any_over and self._is_over(connection):
            return
        usable = connected and not self.closed and not connection.should_reconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        member = self.ledger.give_back(connection, now, usable=usable)
        if member is not None:
            if not connected:
                # Why: what broke it may have broken those that are idle.
                self.ledger.suspect_before = now
                self.ledger.count_broken(BROKEN)
            self.retire([member], drop=not connected)
        if self._upkeep is not None and self._upkeep.exhausted:
            self._upkeep.look_for_recovery(now)

    def discard(self, connection: AbstractConnection, error: Exception | None) -> None:
        """Take back a connection that nobody may use any more."""
        if error is not None:
            self.ledger.count_broken(type(error).__name__)
        if self._any_over and self._is_over(connection):
            return
        member = self.ledger.give_back(connection, time.monotonic(), usable=False)
        if member is not None:
            self.retire([member], drop=True)

    def _is_over(self, connection: AbstractConnection) -> bool:
        """Tell whether a connection that is released has not been lent any more for some time."""
        if connection in self._outlived:
            self._outlived.discard(connection)
            # It was being opened anew by its holder when the pool closed.
            abort(connection)
            return True
        if connection in self._inherited:
            self._inherited.discard(connection)
            return True
        return False

    def _outlives(self, connection: AbstractConnection) -> None:
        bar(connection, lambda: pool_closed(self.name))
        self._outlived.add(connection)
        self._any_over = True

    # What the parts of the pool call

    def entered(self, connection: AbstractConnection) -> None:
        """Enter a connection that was opened."""
        now = time.monotonic()
        life = self.options.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - jitter, no secret
        if self._closing is not None:
            self._closing.entered(connection)
        surplus = self.ledger.opened(connection, now, now + life)
        if surplus is not None:
            self.retire([surplus])

    def refuse(self, make_error: Callable[[], Exception], *, waited: float) -> None:
        """End the waits of those who have waited for so many seconds."""
        self.ledger.refuse(make_error, time.monotonic(), waited)

    def retire(self, members: Sequence[Member[AbstractConnection]], *, drop: bool = False) -> None:
        """Close connections that the ledger has taken out."""
        if self._closing is not None:
            self._closing.retire(members, drop=drop)
            return
        for _ in members:
            # They were closed with the pool.
            self.ledger.closed()

    def _drop_idle_before(self, now: float) -> None:
        unproved = {member.connection for member in self.ledger.idle if member.verified < now}
        self.retire(self.ledger.retire_lost(unproved, now), drop=True)

    def _looked(self, now: float) -> None:
        if self._upkeep is not None and self._upkeep.exhausted:
            self._upkeep.look_for_recovery(now)

    # The end

    async def disconnect(self, *, leased: bool) -> None:
        """Close what is idle, and with `leased` the connections in use too: their holders see them break."""
        for member in list(self.ledger.idle):
            self.ledger.retire_idle(member)
            self.retire([member])
        if leased:
            for connection in list(self.ledger.leased):
                await connection.disconnect(nowait=True)
        if self._closing is not None:
            await self._closing.wait()

    def drop(self) -> None:
        """Drop what is idle at once, and what is in use with its release."""
        self.retire(self.ledger.retire_lost({member.connection for member in self.ledger.idle}, 0.0), drop=True)
        for member in self.ledger.leased.values():
            member.expires = 0.0

    async def close(self) -> None:
        """Close the pool: waits end with an error, attempts are given up, every connection ends. Safe to call again.

        Cancelling the wait lets the closing go on.

        Raises:
            ClientUsageError: The pool belongs to another loop, which is running.
        """
        if self.loop is not None and self.loop is not asyncio.get_running_loop():
            if not self.loop.is_closed():
                raise ClientUsageError(
                    f"The pool '{self.name}' belongs to another event loop, which still runs its connections. Call "
                    "`await pool.aclose()` there."
                )
            self._leave_loop()
        self.closed = True
        self.ledger.refuse(lambda: pool_closed(self.name), time.monotonic())
        if self._ending is None:
            if self.loop is None or self._closing is None:
                return
            self._ending = self._closing.begin(self._end(self._closing))
        await asyncio.shield(self._ending)

    async def _end(self, closing: Closing) -> None:
        parts = (self._opening, self._upkeep, self._deadlines)
        self._opening, self._upkeep, self._deadlines = None, None, None
        try:
            for part in parts:
                if part is not None:
                    await part.close()
            await self.disconnect(leased=True)
        finally:
            for connection in list(self.ledger.leased):
                # Why: its holder may never release it, and the pool may begin anew.
                self.ledger.give_back(connection, time.monotonic(), usable=False)
                self.ledger.closed()
                self._outlives(connection)
            closing.forget()
            self._unbind()

    def _unbind(self) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        self.loop = self._ending = self._closing = self._finalizer = None
        self._opening, self._upkeep, self._deadlines = None, None, None
        self.reauth.clear()

    def _leave_loop(self) -> None:
        """Let go of connections whose loop was closed before the pool was."""
        for member in [*self.ledger.leased.values(), *self.ledger.idle]:
            leave(member.connection)
            self._outlives(member.connection)
        self.ledger.forget()
        if self._closing is not None:
            self._closing.forget()
        self._unbind()

    def abandon(self) -> None:
        """Forget the connections of the parent, in a forked child."""
        connections = [*self.ledger.leased, *(member.connection for member in self.ledger.idle)]
        keep_blind(connections)
        self._inherited.update(connections)
        self._any_over = True
        self.ledger.forget()
        self._census = self._clock = None
        self._unbind()
