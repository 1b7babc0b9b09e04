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
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from headrace.census import Census, Kind
from headrace.errors import UsageError
from headrace.pool.client_errors import ClientConnectionLost, ClientPoolClosed
from headrace.pool.ledger import Ledger
from headrace.pool.loops import watch_forks
from headrace.pool.sync_line import Line
from headrace.pool.sync_opening import SyncOpening
from headrace.pool.sync_socket import answers, file_numbers, is_clean
from headrace.pool.sync_upkeep import sync_upkeep
from headrace.pool.transport import blind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType

    from headrace.census import Entry
    from headrace.pool.holders import Holder
    from headrace.pool.lanes import Lane
    from headrace.pool.ledger import LaneBook, Member
    from headrace.pool.options import PoolOptions

logger = logging.getLogger(__name__)

#: Threads that open the minimum of one pool at the same time.
MOST_HELPERS: Final = 8
#: Idle connections that one upkeep looks at for a closed socket, the longest unused first.
MOST_LOOKED_AT: Final = 256


class Lending:
    """Lend the connections of one pool to threads.

    Args:
        name: Name of the pool.
        limits: Its maximum, minimum and shares.
        options: Its durations.
        make: Makes a connection that is not open yet.
        connect: Opens a connection, once, each step within so many seconds.
        pushes: Whether the server may send messages that nobody asked for.
        census: Where connections and threads are entered.
    """

    def __init__(
        self,
        name: str,
        limits: tuple[int, int, Mapping[str, int] | None],
        options: PoolOptions,
        *,
        make: Callable[[], Any],
        connect: Callable[[Any, float], None],
        pushes: Callable[[], bool],
        census: Census | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.make = make
        self.open = connect
        self._pushes = pushes
        self._given_census = census
        self._limits = limits
        self.closed = False
        #: Whether connections may be taken at once: the pool is open and looked after, in this process.
        self.ready = False
        self._begin()
        watch_forks(self)

    def _begin(self) -> None:
        self.lock = threading.RLock()
        self.ledger: Ledger[Any] = Ledger(*self._limits)
        self.opening = SyncOpening(self, self.ledger, self.options)
        self.census = self._given_census or Census()
        # Bounded by the maximum: one for each open connection.
        self._entries: dict[Any, Entry] = {}
        # Weak: all that was made here, of which a forked child has copies.
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
        self.line = Line(self.name, self.lock, self.ledger, self.opening)
        # Bounded by the maximum: connections that have to log in anew before they go on.
        self.reauth: set[Any] = set()
        self._helpers = 0
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
        return ClientPoolClosed(f"The pool '{self.name}' is closed. Open it again with `pool.start()`, or use another.")

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
            self._discard(connection, ConnectionError("closed while idle"))
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
        except (RedisError, OSError):
            connection.disconnect()
            return False
        return True

    def _refuse_release(self, connection: Any, error: UsageError) -> None:
        """Leave alone what is not leased here: of a parent process, of a closed or reset pool, or released twice."""
        if connection in self._made:
            with self.lock:
                self.ledger.count_error(error)
            logger.warning("connection released twice", extra={"pool": self.name, "reason": str(error)})

    def _discard(self, connection: Any, error: Exception | None) -> None:
        with self.lock:
            if error is not None:
                self.ledger.count_error(error)
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
                self.ledger.closed()
                self.reauth.discard(member.connection)
                entry = self._entries.pop(member.connection, None)
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
        for helper in self._help():
            helper.join()
        with self.lock:
            error, lacks = self.opening.last_error, self.ledger.lacks()
        if error is not None and lacks:
            raise ClientConnectionLost(
                f"pool '{self.name}' could not open its minimum of {self.ledger.minimum} connections: "
                f"{str(error) or type(error).__name__}. The pool goes on trying; check that the server runs."
            ) from error

    def _help(self) -> list[threading.Thread]:
        """Start threads that open what is wanted and nobody waits for; they end when it is open."""
        with self.lock:
            wanted = min(self.ledger.openings_wanted(), MOST_HELPERS - self._helpers)
            if wanted <= 0 or self.closed or self.opening.due(time.monotonic()) > time.monotonic():
                return []
            self._helpers += wanted
        helpers = [threading.Thread(target=self._open_wanted, daemon=True) for _ in range(wanted)]
        for helper in helpers:
            helper.name = f"headrace pool opening of {self.name}"
            helper.start()
        return helpers

    def _open_wanted(self) -> None:
        entry = self.census.add(Kind.THREAD, "open the minimum", f"pool {self.name}")
        try:
            while True:
                with self.lock:
                    now = time.monotonic()
                    if self.closed or self.opening.due(now) > now:
                        return
                    seconds = self.opening.begin()
                self.opening.attempt(self.lock, seconds)
        finally:
            with self.lock:
                self._helpers -= 1
            entry.close()

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
        with self.lock:
            self.closed, self.ready = True, False
            self.line.close(self.closed_error)
        self.disconnect(leased=True)
        sync_upkeep.remove(self)
        with self.lock:
            for entry in self._entries.values():
                entry.close()
            self._entries.clear()

    def forget(self) -> None:
        """Begin with an empty ledger; what is idle is closed, what is in use belongs to its holders alone."""
        self.disconnect(leased=False)
        with self.lock:
            self._begin()

    # Upkeep

    def upkeep(self, now: float) -> float:
        """Close what is idle, old or dead, report long holds, keep the minimum; returns when to come again."""
        with self.lock:
            self.ledger.turn(now)
            retired = self.ledger.retire_surplus(now, self.options.idle_timeout)
            retired += self._retire_dead()
            held = self._find_held(now)
        for member in retired:
            self._close(member)
        for holder in held:
            facts = {"held_s": round(holder.held, 1), "owner": holder.owner, "purpose": holder.purpose}
            facts |= {"pool": self.name, "lane": holder.lane, "place": holder.place}
            logger.warning("connection held too long", extra=facts)
        self._help()
        return now + self.options.upkeep_interval

    def _retire_dead(self) -> list[Member[Any]]:
        dead = [
            member
            for member in self.ledger.idle[:MOST_LOOKED_AT]
            if not member.connection.is_connected or not is_clean(member.connection, self._pushes)
        ]
        for member in dead:
            self.ledger.retire_idle(member)
        return dead

    def _find_held(self, now: float) -> list[Holder]:
        limit = self.options.held_warn
        found = []
        for member in self.ledger.leased.values() if limit else ():
            if not member.reported and now - member.since >= limit:
                member.reported = True
                found.append(member.holder(now))
        return found

    def resize(self, maximum: int, minimum: int, shares: Mapping[Lane, int]) -> None:
        """Change the limits; what is leased above them is closed when it is released.

        Raises:
            OptionError: The shares do not add up.
        """
        with self.lock:
            self.ledger.resize(maximum, minimum, shares)
            self._limits = (maximum, minimum, {str(lane): share for lane, share in shares.items()})
            self.ledger.serve(time.monotonic())
            self.line.nudge()
        sync_upkeep.wake(self)
