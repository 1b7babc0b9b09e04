"""The lines in which callers wait, one for each lane, first in first out, and the connections that they wait for."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from headrace.histogram import RecentMaximum
from headrace.pool.holders import Holder, name_owner, name_place
from headrace.pool.lanes import Lane

if TYPE_CHECKING:
    from types import CodeType

C = TypeVar("C")
M_contra = TypeVar("M_contra", contravariant=True)


class Member(Generic[C]):
    """One open connection of a pool, and who has it."""

    __slots__ = (
        "connection",
        "expires",
        "idle_since",
        "lane",
        "opened",
        "owner",
        "place",
        "purpose",
        "reported",
        "since",
        "verified",
    )

    def __init__(self, connection: C, *, now: float, expires: float) -> None:
        self.connection = connection
        self.expires = expires
        self.opened = self.idle_since = self.verified = self.since = now
        self.lane: LaneBook[C] | None = None
        self.owner: object = None
        self.purpose = ""
        self.place: tuple[CodeType, int] | None = None
        self.reported = False

    def holder(self, now: float) -> Holder:
        """Return who holds it."""
        lane = self.lane.lane if self.lane is not None else Lane.USER
        return Holder(lane, name_owner(self.owner), self.purpose, name_place(self.place), now - self.since)


class Waiter(Protocol[M_contra]):
    """Somebody who waits for a connection."""

    deadline: float
    since: float

    def accept(self, member: M_contra) -> bool:
        """Take the connection, and return whether it is still wanted."""
        ...

    def refuse(self, error: Exception) -> None:
        """End the wait with an error."""
        ...


class LaneBook(Generic[C]):
    """One lane: its share, how much of it is used, and who waits."""

    __slots__ = (
        "_deadline_last",
        "in_order",
        "lane",
        "reserved",
        "share",
        "timeouts",
        "used",
        "waiters",
        "waiting_highest",
    )

    def __init__(self, lane: Lane, share: int) -> None:
        self.lane = lane
        self.share = share
        self.used = self.reserved = 0
        self.timeouts = 0
        # Bounded by the callers that wait, each until its deadline. A dictionary, so that thousands may leave at once
        # from the middle of the line.
        self.waiters: OrderedDict[Waiter[Member[C]], None] = OrderedDict()
        self.waiting_highest = RecentMaximum()
        #: Whether who came first also leaves first, as when all wait equally long; then nobody looks through the line.
        self.in_order = True
        self._deadline_last = -math.inf

    def append(self, waiter: Waiter[Member[C]]) -> None:
        """Put a waiter at the end of the line."""
        if not self.waiters:
            self.in_order = True
        elif waiter.deadline < self._deadline_last:
            self.in_order = False
        self._deadline_last = waiter.deadline
        self.waiters[waiter] = None

    def prepend(self, waiter: Waiter[Member[C]]) -> None:
        """Put a waiter at the front of the line."""
        if not self.waiters:
            self.append(waiter)
            return
        if waiter.deadline > self.first().deadline:
            self.in_order = False
        self.waiters[waiter] = None
        self.waiters.move_to_end(waiter, last=False)

    def first(self) -> Waiter[Member[C]]:
        """Return who stands first in the line."""
        return next(iter(self.waiters))

    def late(self, now: float) -> list[tuple[Waiter[Member[C]], int]]:
        """List those whose time is up, each with the number of others that wait before it."""
        found: list[tuple[Waiter[Member[C]], int]] = []
        for position, waiter in enumerate(self.waiters):
            if waiter.deadline <= now:
                found.append((waiter, position - len(found)))
            elif self.in_order:
                break
        return found

    def next_deadline(self) -> float:
        """Return when the next of them has to be told that its time is up, infinity without any."""
        if not self.waiters:
            return math.inf
        return self.first().deadline if self.in_order else min(waiter.deadline for waiter in self.waiters)
