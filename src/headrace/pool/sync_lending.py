"""The synchronous pool behind its surface: threads take turns, connections are checked, opened, closed and tended.

One object is shared by a pool and the views of its lanes. The ledger decides, under one lock; nothing that may wait for
the server happens while it is held.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from headrace.census import Census, Kind
from headrace.errors import UsageError
from headrace.pool.client_errors import ClientPoolClosed, minimum_lacking, no_share, pool_closed
from headrace.pool.exhaustion import Exhaustion
from headrace.pool.figures import PoolStats, find_held, read_stats
from headrace.pool.ledger import BROKEN, ENDED_IDLE
from headrace.pool.limits import make_ledger
from headrace.pool.loops import watch_forks
from headrace.pool.sync_line import Line
from headrace.pool.sync_opening import SyncOpening
from headrace.pool.sync_socket import TORN, answers, file_numbers, is_clean
from headrace.pool.sync_tending import Helpers, retire_dead
from headrace.pool.sync_upkeep import sync_upkeep
from headrace.pool.transport import blind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType

    from headrace.census import Entry
    from headrace.pool.lanes import Lane
    from headrace.pool.ledger import LaneBook, Ledger, Member
    from headrace.pool.options import PoolOptions
    from headrace.pool.sync_opening import Owner

logger = logging.getLogger(__name__)


class Lending:
    """Lend the connections of one pool to threads.

    Args:
        name: Name of the pool.
        limits: Its maximum, minimum and shares.
        options: Its durations.
        owner: Makes and opens connections; kept weakly, so that a pool that is forgotten ends at once.
        census: Where connections and threads are entered.
        on_event: Told `exhausted` and `recovered`, with the facts.

    Raises:
        ClientOptionError: A limit is outside its bounds.
    """

    def __init__(
        self,
        name: str,
        limits: tuple[int, int, Mapping[str, int] | None],
        options: PoolOptions,
        owner: Owner,
        *,
        census: Census | None = None,
        on_event: Callable[[str, dict[str, object]], None] | None = None,
    ) -> None:
        self.name = name
        self._on_event = on_event
        self.options = options
        self._owner = weakref.ref(owner)
        self._given_census = census
        self._limits = limits
        self.closed = False
        #: Whether connections may be taken at once: the pool is open and looked after, in this process.
        self.ready = False
        self._begin()
        weakref.finalize(owner, self.end).atexit = False
        watch_forks(self)

    def _begin(self) -> None:
        self.lock = threading.RLock()
        self.ledger: Ledger[Any] = make_ledger(*self._limits)
        self.opening = SyncOpening(self, self.ledger, self.options)
        self.census = self._given_census or Census()
        # Bounded by the maximum: one for each open connection.
        self._entries: dict[Any, Entry] = {}
        # Weak: all that was made here, of which a forked child has copies.
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
        self.line = Line(self.name, self.lock, self.ledger, self.opening, self._watch, self.options.exhausted_after)
        self._exhaustion = Exhaustion(self.name, self.ledger, self.options, self._on_event)
        # Bounded by the maximum: connections that have to log in anew before they go on.
        self.reauth: set[Any] = set()
        self._helpers = Helpers(self.name, self.lock, self.opening, self.line, self.census)
        self._logged = time.monotonic()

    def abandon(self) -> None:
        """Let go of the parent's sockets in a forked child, and begin with an empty ledger."""
        blind(file_numbers(self._made))
        self._given_census = None
        self._begin()
        self.ready = False

    def make_ready(self) -> None:
        """Begin to be looked after, at the first use in this process.

        Raises:
            ClientPoolClosed: The pool is closed.
        """
        if self.closed:
            raise self.closed_error()
        with self.lock:
            if not self.ready:
                self.ready = True
                sync_upkeep.add(self)

    def closed_error(self) -> ClientPoolClosed:
        """Build the error of a closed pool."""
        return pool_closed(self.name, start="pool.start()")

    # Acquire and release

    def acquire(
        self, book: LaneBook[Any], timeout: float, purpose: tuple[str, str], place: tuple[CodeType, int] | None
    ) -> Any:
        """Take a connection that works, waiting in order of arrival.

        Args:
            book: The lane.
            timeout: Longest wait in seconds.
            purpose: Owner and purpose; without an owner, the name of the thread.
            place: Who asks.

        Raises:
            ClientPoolTimeout: The wait ran out.
            ClientPoolClosed: The pool is closed.
            RedisError: No connection could be opened; the classes of `headrace.pool.client_errors`.
        """
        if not self.ready:
            self.make_ready()
        since = time.monotonic()
        ledger = self.ledger
        with self.lock:
            member = ledger.take(book, since)
        first = False
        while True:
            if member is None:
                member = self.line.wait(book, since, since + timeout, first=first)
            elif not first:
                ledger.waits.current.zeros += 1
            member.owner = purpose[0] or threading.current_thread().name
            member.purpose = purpose[1]
            member.place = place
            connection = member.connection
            try:
                usable = self._check(member)
            except BaseException:
                self._discard(connection, None)
                raise
            if usable:
                return connection
            self._discard(connection, ENDED_IDLE)
            first = True
            with self.lock:
                member = ledger.take(book, time.monotonic())

    def release(self, connection: Any, *, wanted: bool = True) -> None:
        """Take a connection back; one that is broken, marked or not wanted is closed, and its place is free."""
        if self.reauth:
            self._log_in_again(connection)
        connected = connection.is_connected
        usable = wanted and connected and not self.closed and not connection.should_reconnect()
        now = time.monotonic()
        try:
            with self.lock:
                member = self.ledger.give_back(connection, now, usable=usable)
                if not connected:
                    # Why: what broke it may have broken those that are idle.
                    self.ledger.suspect_before = now
                    self.ledger.count_broken(BROKEN)
        except UsageError as error:
            self._refuse_release(connection, error)
            return
        if member is not None:
            self._close(member)

    def expect_login(self, token: Any) -> None:
        """Log in anew with a token: idle connections before their next use, those in use when they are released."""
        with self.lock:
            connections = [member.connection for member in self.ledger.idle] + list(self.ledger.leased)
            for connection in connections:
                connection.set_re_auth_token(token)
            self.reauth.update(connections)

    def _log_in_again(self, connection: Any) -> bool:
        """Log in anew where a new token came; returns whether the connection is usable."""
        with self.lock:
            if connection not in self.reauth:
                return True
            self.reauth.discard(connection)
        try:
            connection.re_auth()
        except TORN:
            connection.disconnect()
            return False
        return True

    def _refuse_release(self, connection: Any, error: UsageError) -> None:
        """Leave alone what is not leased here: of a parent process, of a closed or reset pool, or released twice."""
        if connection in self._made:
            with self.lock:
                self.ledger.count_error(error)
            logger.warning("connection released twice", extra={"pool": self.name, "reason": str(error)})

    def _discard(self, connection: Any, broken: str | None) -> None:
        with self.lock:
            if broken is not None:
                self.ledger.count_broken(broken)
            member = self.ledger.give_back(connection, time.monotonic(), usable=False)
        if member is not None:
            self._close(member)

    def _check(self, member: Member[Any]) -> bool:
        """Tell whether a connection works; asks the server only after it was idle for long, or under suspicion."""
        connection = member.connection
        if not connection.is_connected or not is_clean(connection, self._pushes):
            return False
        now = time.monotonic()
        if self.reauth and not self._log_in_again(connection):
            return False
        if member.verified > self.ledger.suspect_before and now - member.verified < self.options.check_after:
            return True
        if answers(connection, self.options.check_timeout):
            member.verified = time.monotonic()
            return True
        with self.lock:
            # Why: it vanished without a word, and whatever was verified before most likely with it.
            self.ledger.suspect_before = now
        return False

    # Opening and closing

    def make(self) -> Any:
        """Make a connection that is not open yet."""
        return self._find_owner().make_connection()

    def open(self, connection: Any, seconds: float) -> None:
        """Open it, each step within so many seconds."""
        self._find_owner().connect_once(connection, seconds)

    def _find_owner(self) -> Owner:
        owner = self._owner()
        if owner is None:
            raise self.closed_error()
        return owner

    def _pushes(self) -> bool:
        owner = self._owner()
        return owner is not None and owner.expects_pushes()

    def entered(self, connection: Any) -> None:
        """Take a connection that has been opened; called under the lock."""
        now = time.monotonic()
        life = self.options.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311 - jitter, no secret
        self._made.add(connection)
        self._entries[connection] = self.census.add(Kind.CONNECTION, f"{self.name}:client", f"pool {self.name}")
        surplus = self.ledger.opened(connection, now, now + life)
        if surplus is None and self.closed:
            surplus = self.ledger.idle[-1]
            self.ledger.retire_idle(surplus)
        if surplus is not None:
            self._close(surplus)
        self.line.nudge()

    def _close(self, member: Member[Any]) -> None:
        try:
            member.connection.disconnect()
        finally:
            with self.lock:
                self._left(member.connection)

    def _left(self, connection: Any) -> None:
        """Count a connection that is closed, or belongs to its holder alone; its place is free."""
        self.ledger.closed()
        self.reauth.discard(connection)
        entry = self._entries.pop(connection, None)
        if entry is not None:
            entry.close()
        self.line.nudge()

    def start(self) -> None:
        """Open the minimum in parallel and wait for it; a closed pool begins anew.

        Raises:
            ClientConnectionLost: The minimum could not be opened.
        """
        with self.lock:
            self.closed = False
            self.line.open()
        self.make_ready()
        self._help()
        self._helpers.await_all()
        with self.lock:
            error, lacks = self.opening.last_error, self.ledger.lacks()
        if error is not None and lacks:
            raise minimum_lacking(self.name, self.ledger.minimum, error) from error

    def _help(self) -> None:
        with self.lock:
            if not self.closed:
                self._helpers.help(self.ledger.openings_wanted())

    def disconnect(self, *, leased: bool) -> None:
        """Close what is idle, and with `leased` the connections in use too: their holders see them break."""
        with self.lock:
            members = list(self.ledger.idle)
            for member in members:
                self.ledger.retire_idle(member)
            used = list(self.ledger.leased) if leased else []
        for member in members:
            self._close(member)
        for connection in used:
            connection.disconnect()

    def close(self) -> None:
        """Close the pool: waits end with an error and every connection ends. A second call does nothing."""
        self.end(leased=True)
        sync_upkeep.await_end()
        with self.lock:
            for entry in self._entries.values():
                entry.close()
            self._entries.clear()

    def end(self, *, leased: bool = False) -> None:
        """Lend no more, as when the pool is closed or forgotten; what is in use may stay open."""
        with self.lock:
            self.closed, self.ready = True, False
            self.line.close(self.closed_error)
        self.disconnect(leased=leased)
        sync_upkeep.remove(self)

    def forget(self) -> None:
        """Count no connection any more: what is idle is closed, what is in use belongs to its holders alone."""
        self.disconnect(leased=False)
        with self.lock:
            for connection in list(self.ledger.leased):
                self.ledger.give_back(connection, time.monotonic(), usable=False)
                self._left(connection)

    # Upkeep

    def upkeep(self, now: float) -> float:
        """Close what is idle, old or dead, report long holds, keep the minimum; returns when to come again."""
        with self.lock:
            self.ledger.turn(now)
            retired = self.ledger.retire_surplus(now, self.options.idle_timeout)
            retired += retire_dead(self.ledger, self._pushes)
            held = find_held(self.name, self.ledger, self.options.held_warn, now)
            self.line.watched = False
            events = self._exhaustion.find_over(now)
            found, again = self._exhaustion.find(now)
            if self._exhaustion.since:
                again = min(again, self._exhaustion.look_again(now))
            stats = self._stats_due(now)
        for member in retired:
            self._close(member)
        self._exhaustion.tell(events + found)
        for facts in held:
            logger.warning("connection held too long", extra=facts)
        if stats is not None:
            logger.info("pool stats", extra=stats.fields())
        self._help()
        return min(again, now + self.options.upkeep_interval)

    def _stats_due(self, now: float) -> PoolStats | None:
        interval = self.options.stats_interval
        if not interval or now - self._logged < interval * 0.95:
            return None
        self._logged = now
        return read_stats(self.name, self.ledger, now)

    def _watch(self, when: float) -> None:
        sync_upkeep.call(self, when)

    def resize(self, maximum: int, minimum: int, shares: Mapping[Lane, int]) -> None:
        """Change the limits; what is leased above them is closed when it is released.

        Raises:
            OptionError: The shares do not add up.
        """
        with self.lock:
            self.ledger.resize(maximum, minimum, shares)
            self._limits = (maximum, minimum, {str(lane): share for lane, share in shares.items()})
            for book in self.ledger.lanes.values():
                if book.share <= 0:
                    self.ledger.refuse_lane(book, lambda lane: no_share(self.name, lane.lane))
            self.ledger.serve(time.monotonic())
            self.line.nudge()
        sync_upkeep.wake(self)
