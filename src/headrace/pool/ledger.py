"""The ledger of a pool: who gets which connection, decided without I/O, clocks, locks or tasks.

The asyncio pool and the synchronous pool keep their book here and do what it says: it opens nothing and closes nothing
itself. Times are seconds of one monotonic clock, handed in. Callers with threads hold one lock around every call.

Invariants, at every call's end:
    idle + leased + opening + closing <= the largest maximum since the last time they were fewer;
    no place is given out above the maximum; a lane never uses more than its share;
    nobody waits in a lane that may take a connection while one is idle;
    waiters of a lane are served in order of arrival.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from headrace.errors import UsageError
from headrace.histogram import RecentHistogram, RecentMaximum
from headrace.pool.lanes import Lane, parse_shares
from headrace.pool.waiters import LaneBook, Member, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from headrace.pool.holders import Holder

__all__ = ["LaneBook", "Ledger", "Member", "Waiter"]

C = TypeVar("C")

#: Classes of errors that are counted apart; more count as `other`.
MOST_ERROR_CLASSES: Final = 32
#: What idle connections that the server has ended count as, and connections that broke while they were in use.
ENDED_IDLE: Final = "ConnectionEnded"
BROKEN: Final = "ConnectionBroken"


class Ledger(Generic[C]):
    """Decide who gets which connection.

    Args:
        maximum: Most connections, counting those being opened and closed.
        minimum: Connections to be kept open.
        shares: Lane to share; they add up to `maximum`.

    Raises:
        OptionError: A value is outside its bounds.
    """

    def __init__(self, maximum: int, minimum: int, shares: Mapping[str, int] | None) -> None:
        parsed = parse_shares(shares, maximum)
        self.maximum = maximum
        self.minimum = minimum
        self.lanes = {lane: LaneBook[C](lane, share) for lane, share in parsed.items()}
        # Bounded by `maximum`, all three.
        self.idle: list[Member[C]] = []
        self.leased: dict[C, Member[C]] = {}
        self.opening = 0
        self.closing = 0
        #: Places given to what is no connection of this ledger, such as the links of an app.
        self.reserved = 0
        # Invariant: the sum of the five above.
        self._places = 0
        self.waiting = 0
        self.opened_total = self.closed_total = self.failed_total = self.timeouts_total = self.calls_total = 0
        # Bounded: MOST_ERROR_CLASSES and one more.
        self.errors: dict[str, int] = {}
        self.waits = RecentHistogram()
        self.responses = RecentHistogram()
        self.waiting_highest = RecentMaximum()
        #: Connections that were last verified before this time are checked before they are given out.
        self.suspect_before = 0.0

    @property
    def total(self) -> int:
        """Places in use: connections that are open, being opened or being closed, and reserved ones."""
        return self._places

    # Taking and giving back

    def take(self, book: LaneBook[C], now: float) -> Member[C] | None:
        """Lease the idle connection that was used last, or return None when the caller has to wait."""
        if book.used >= book.share or not self.idle or book.waiters:
            return None
        member = self.idle.pop()
        self._lease(member, book, now)
        return member

    def wait(self, book: LaneBook[C], waiter: Waiter[Member[C]], *, first: bool = False) -> None:
        """Put a waiter at the end of its lane, or at the front when it gave back a connection that proved dead."""
        if first:
            book.prepend(waiter)
        else:
            book.append(waiter)
        self.waiting += 1
        # Measured: among a thousand waiters, looking first whether there is anything to record saves a twentieth.
        for highest, waiting in ((self.waiting_highest, self.waiting), (book.waiting_highest, len(book.waiters))):
            if waiting > highest.last or waiter.since >= highest.until:
                highest.record(waiting, waiter.since)

    def leave(self, book: LaneBook[C], waiter: Waiter[Member[C]]) -> bool:
        """Take a waiter out of its lane before its turn; returns False when it is not there any more."""
        if waiter not in book.waiters:
            return False
        del book.waiters[waiter]
        self.waiting -= 1
        return True

    def give_back(self, connection: C, now: float, *, usable: bool) -> Member[C] | None:
        """End a lease, and serve those who wait.

        Args:
            connection: What was leased.
            now: The time.
            usable: Whether somebody else may have it.

        Returns:
            A member that the caller has to close, and then report by `closed`; None when it went on.

        Raises:
            UsageError: The connection is not leased from this pool.
        """
        member = self.leased.pop(connection, None)
        if member is None or member.lane is None:
            raise UsageError(
                "A connection was released that this pool has not leased. Release each connection once, to the pool "
                "that it was acquired from."
            )
        member.lane.used -= 1
        self.responses.current.record(now - member.since)
        self.calls_total += 1
        member.owner = member.place = None
        member.reported = False
        if usable and now < member.expires and self._places - self.closing <= self.maximum:
            member.idle_since = member.verified = now
            self.idle.append(member)
            if self.waiting:
                self.serve(now)
            return None
        self.closing += 1
        if self.waiting:
            # Why: the lane has used one less of its share, so that its next waiter may have what others left idle.
            self.serve(now)
        return member

    def serve(self, now: float) -> None:
        """Hand idle connections to those who wait: lanes in their order, waiters of a lane in order of arrival."""
        for book in self.lanes.values():
            while book.waiters and self.idle and book.used < book.share:
                waiter, _ = book.waiters.popitem(last=False)
                self.waiting -= 1
                member = self.idle.pop()
                self._lease(member, book, now)
                if waiter.accept(member):
                    self.waits.current.record(now - waiter.since)
                else:
                    # Why: it was cancelled in between; the turn passes to the next.
                    del self.leased[member.connection]
                    book.used -= 1
                    self.idle.append(member)

    def expire(self, now: float) -> Iterator[tuple[LaneBook[C], Waiter[Member[C]], int]]:
        """Take out the waiters whose time is up, each with the number that wait before it; the caller refuses each."""
        for book in self.lanes.values():
            for waiter, ahead in book.late(now):
                if self.time_out(book, waiter, now):
                    yield book, waiter, ahead

    def time_out(self, book: LaneBook[C], waiter: Waiter[Member[C]], now: float) -> bool:
        """Take out a waiter whose time is up, and count that; returns False when it is not there any more."""
        if not self.leave(book, waiter):
            return False
        book.timeouts += 1
        self.timeouts_total += 1
        self.waits.current.record(now - waiter.since)
        return True

    def next_deadline(self) -> float | None:
        """Return when the next waiter has to be told that its time is up."""
        nearest = min(book.next_deadline() for book in self.lanes.values())
        return nearest if nearest < math.inf else None

    def refuse(self, make_error: Callable[[], Exception], now: float, waited: float = 0.0) -> None:
        """End the waits that have lasted for at least `waited` seconds, each with an error of its own."""
        for book in self.lanes.values():
            while book.waiters and now - book.first().since >= waited:
                waiter, _ = book.waiters.popitem(last=False)
                self.waiting -= 1
                waiter.refuse(make_error())

    def refuse_lane(self, book: LaneBook[C], make_error: Callable[[LaneBook[C]], Exception]) -> None:
        """End the waits of one lane."""
        while book.waiters:
            waiter, _ = book.waiters.popitem(last=False)
            self.waiting -= 1
            waiter.refuse(make_error(book))

    # Opening and closing

    def openings_wanted(self) -> int:
        """Return how many more connections should be opened now, within the maximum."""
        if self._places >= self.maximum:
            return 0
        # A lane uses more than its share after the share was lowered; that takes nothing from the others.
        entitled = sum(min(len(book.waiters), max(0, book.share - book.used)) for book in self.lanes.values())
        total = self.total
        open_soon = len(self.idle) + self.opening
        wanted = max(entitled - open_soon, self.kept - (total - self.closing))
        return max(0, min(wanted, self.maximum - total))

    @property
    def kept(self) -> int:
        """How many connections are kept open: the minimum, less what would take the places of links to come."""
        spare = sum(max(0, book.share - book.used) for lane, book in self.lanes.items() if lane is not Lane.USER)
        return min(self.minimum, self.maximum - spare) if self.reserved else self.minimum

    def lacks(self) -> bool:
        """Tell whether somebody waits, or fewer connections than are kept open."""
        return self.waiting > 0 or len(self.idle) + len(self.leased) + self.reserved < self.kept

    def is_full(self) -> bool:
        """Tell whether no place is left."""
        return self._places >= self.maximum

    def open_began(self) -> None:
        """Count a connection that is being opened."""
        self.opening += 1
        self._places += 1

    def opened(self, connection: C, now: float, expires: float) -> Member[C] | None:
        """Enter a connection that was opened; returns it when it is not wanted any more and has to be closed."""
        self.opening -= 1
        self.opened_total += 1
        member = Member(connection, now=now, expires=expires)
        if self._places - self.closing > self.maximum:
            self.closing += 1
            return member
        self.idle.append(member)
        self.serve(now)
        return None

    def open_failed(self, error: BaseException | None) -> None:
        """Count a connection that could not be opened; None when it is not wanted any more, which is no failure."""
        self.opening -= 1
        self._places -= 1
        if error is not None:
            self.failed_total += 1
            self.count_error(error)

    def retire_idle(self, member: Member[C]) -> None:
        """Take an idle connection out, to be closed by the caller."""
        self.idle.remove(member)
        self.closing += 1

    def retire_lost(self, lost: Container[C], now: float) -> list[Member[C]]:
        """Take out the idle connections that the server has ended; what is left of them is checked before its use."""
        gone = [member for member in self.idle if member.connection in lost]
        if gone:
            self.idle = [member for member in self.idle if member.connection not in lost]
            self.closing += len(gone)
            self.suspect_before = now
            for _ in gone:
                self.count_broken(ENDED_IDLE)
        return gone

    def retire_surplus(self, now: float, idle_timeout: float) -> list[Member[C]]:
        """Take out what is idle and past its lifetime, above the maximum, or unused for too long above the minimum."""
        retired: list[Member[C]] = []
        kept: list[Member[C]] = []
        kept_open = self._places - self.closing
        over = kept_open - self.maximum
        spare = kept_open - self.minimum
        # The longest unused stand first.
        for member in self.idle:
            unused = now - member.idle_since >= idle_timeout
            if over > 0 or now >= member.expires or (unused and spare > 0):
                retired.append(member)
                over -= 1
                spare -= 1
            else:
                kept.append(member)
        self.idle = kept
        self.closing += len(retired)
        return retired

    def closed(self) -> None:
        """Count a connection that has been closed; its place is free."""
        self.closing -= 1
        self._places -= 1
        self.closed_total += 1

    # Places without a connection of this ledger

    def reserve(self, lane: Lane) -> bool:
        """Take a place of a lane for good, for a connection that others manage; returns whether there was one.

        `yield_place` makes one of an idle connection, once that is closed.
        """
        book = self.lanes.get(lane)
        if book is None or book.used >= book.share or self._places >= self.maximum:
            return False
        book.used += 1
        book.reserved += 1
        self.reserved += 1
        self._places += 1
        return True

    def yield_place(self, lane: Lane) -> Member[C] | None:
        """Take out the idle connection that was unused for longest, when a lane has a share left but no place is."""
        book = self.lanes.get(lane)
        if book is None or book.used >= book.share or self._places < self.maximum or not self.idle:
            return None
        self.closing += 1
        return self.idle.pop(0)

    def unreserve(self, lane: Lane, now: float) -> None:
        """Give such a place back, and serve whoever waits in its lane."""
        self.lanes[lane].used -= 1
        self.lanes[lane].reserved -= 1
        self.reserved -= 1
        self._places -= 1
        self.serve(now)

    def forget(self) -> None:
        """Forget all connections and waits: they are those of a parent process, or of an event loop that is gone."""
        self.closed_total += len(self.idle) + len(self.leased) + self.closing
        self.idle, self.leased = [], {}
        self.opening = self.closing = self.waiting = 0
        self._places = self.reserved
        for book in self.lanes.values():
            book.waiters.clear()
            book.used = book.reserved

    # Limits and figures

    def turn(self, now: float) -> None:
        """Let old figures fade; called at least every ten seconds while the pool is used."""
        self.waits.turn(now)
        self.responses.turn(now)

    def resize(self, maximum: int, minimum: int, shares: Mapping[Lane, int]) -> None:
        """Change the limits; what is leased above them is closed when it is released.

        Raises:
            OptionError: The shares do not add up, or a lane in use would be left out.
        """
        parsed = parse_shares({str(lane): share for lane, share in shares.items()}, maximum)
        for lane, share in parsed.items():
            if lane not in self.lanes:
                self.lanes[lane] = LaneBook(lane, share)
        for lane, book in self.lanes.items():
            # A lane that is left out takes nothing any more; its holders keep what they have until they release it.
            book.share = parsed.get(lane, 0)
        self.lanes = {lane: self.lanes[lane] for lane in Lane if lane in self.lanes}
        self.maximum, self.minimum = maximum, minimum

    def count_error(self, error: BaseException) -> None:
        """Count an error by its class."""
        self.count_name(type(error).__name__)

    def count_broken(self, name: str) -> None:
        """Count a connection that broke, by a name such as BROKEN."""
        self.failed_total += 1
        self.count_name(name)

    def count_name(self, name: str) -> None:
        """Count an error by the name of its class."""
        if name not in self.errors and len(self.errors) >= MOST_ERROR_CLASSES:
            name = "other"
        self.errors[name] = self.errors.get(name, 0) + 1

    def holders(self, now: float, lane: Lane | None = None) -> list[Holder]:
        """List who holds connections, of one lane or of all."""
        return [
            member.holder(now)
            for member in self.leased.values()
            if lane is None or (member.lane is not None and member.lane.lane is lane)
        ]

    def _lease(self, member: Member[C], book: LaneBook[C], now: float) -> None:
        book.used += 1
        member.lane = book
        member.since = now
        self.leased[member.connection] = member
