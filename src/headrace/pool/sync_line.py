"""The line of threads that wait for a connection of one pool, each until its deadline."""

from __future__ import annotations

import time
from _thread import allocate_lock
from typing import TYPE_CHECKING, Any, Final

from headrace.pool.client_errors import no_share, pool_timeout
from headrace.pool.sync_opening import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import RLock

    from headrace.pool.ledger import LaneBook, Ledger, Member
    from headrace.pool.sync_opening import SyncOpening

#: Longest sleep, seconds; the longest wait for a connection is as long.
LONGEST: Final = 600.0
#: Least time that an opening gets from a thread whose own wait ends sooner, seconds.
LEAST_OPENING: Final = 0.05


class ThreadWait:
    """One waiting thread; everything but `sleep` happens under the lock of its pool.

    Attributes:
        since: When the wait began.
        deadline: When it ends without a connection.
        member: What it was given.
        error: Why it gets nothing.
        busy: Whether its thread opens a connection meanwhile, for whoever is first in line then.
        called: Whether it was woken to open one or to keep the time; it has to look, or to call another.
    """

    __slots__ = ("_bell", "_rung", "busy", "called", "deadline", "error", "member", "since")

    def __init__(self, since: float, deadline: float) -> None:
        self.since = since
        self.deadline = deadline
        self.member: Member[Any] | None = None
        self.error: BaseException | None = None
        self.busy = self.called = False
        self._bell = allocate_lock()
        self._bell.acquire()
        self._rung = False

    def is_served(self) -> bool:
        """Tell whether it has got a connection."""
        return self.member is not None

    def accept(self, member: Member[Any]) -> bool:
        """Take the connection; a thread that gives up has left the line before."""
        self.member = member
        self.ring()
        return True

    def refuse(self, error: BaseException) -> None:
        """End the wait with an error."""
        self.error = error
        self.ring()

    def ring(self) -> None:
        """Wake the thread, so that it looks at the ledger again."""
        if not self._rung:
            self._rung = True
            self._bell.release()

    def sleep(self, seconds: float) -> None:
        """Wait, without the pool's lock, until somebody rings or the time is over."""
        self._bell.acquire(timeout=min(max(seconds, 0.0), LONGEST))

    def woke(self) -> None:
        """Be ready for the next ring."""
        if self._rung:
            self._rung = False
            # Why: a ring that came after the time was over has left the bell open.
            self._bell.acquire(blocking=False)


class Line:
    """Let threads wait in order of arrival, and open what is wanted by their hands.

    Args:
        name: Name of the pool.
        lock: Its lock.
        ledger: Its book.
        opening: Says when a connection is to be opened.
        watch: Called once with the time at which the wait of whoever came first is a long one.
        long: Seconds of a long wait.
    """

    def __init__(
        self,
        name: str,
        lock: RLock,
        ledger: Ledger[Any],
        opening: SyncOpening,
        watch: Callable[[float], None],
        long: float,
    ) -> None:
        self._watch = watch
        self._long = long
        #: Whether `watch` was called since somebody last looked at those who wait.
        self.watched = False
        self._name = name
        self._lock = lock
        self._ledger = ledger
        self._opening = opening
        self._keeper: ThreadWait | None = None
        #: Builds the error of those who come when the pool is closed.
        self.closed: Callable[[], Exception] | None = None

    def close(self, make_error: Callable[[], Exception]) -> None:
        """End all waits, and those to come, with an error."""
        with self._lock:
            self.closed = make_error
            self._ledger.refuse(make_error, time.monotonic())

    def open(self) -> None:
        """Let threads wait again."""
        self.closed = None

    def wait(self, book: LaneBook[Any], since: float, deadline: float, *, first: bool) -> Member[Any]:
        """Wait for a connection of a lane.

        Args:
            book: The lane.
            since: When the caller began to wait.
            deadline: When it gives up.
            first: Whether it was served before, by a connection that proved dead.

        Raises:
            ClientPoolTimeout: The wait ran out.
            ClientPoolClosed: The pool is closed.
            RedisError: No connection could be opened.

        Whatever interrupts the thread passes its turn to the next.
        """
        wait = ThreadWait(since, deadline)
        with self._lock:
            if self.closed is not None:
                raise self.closed()
            if book.share <= 0:
                raise no_share(self._name, book.lane)
            self._ledger.wait(book, wait, first=first)
            if not self.watched:
                self.watched = True
                self._watch(since + self._long)
        try:
            while not self._step(book, wait):
                pass
        except BaseException:
            with self._lock:
                if not self._ledger.leave(book, wait) and wait.member is not None:
                    self._ledger.give_back(wait.member.connection, time.monotonic(), usable=True)
                self._step_down(wait)
            raise
        if wait.called or wait.busy or self._keeper is wait:
            with self._lock:
                self._step_down(wait)
        if wait.member is None:
            raise wait.error or pool_timeout(self._name, str(book.lane), waited=0, share=0, used=0, ahead=0, holders=[])
        return wait.member

    def nudge(self) -> None:
        """Wake as many waiting threads as may open a connection now, or one to keep the time of the next attempt."""
        if not self._ledger.waiting:
            return
        now = time.monotonic()
        due = self._opening.due(now)
        if due == NEVER or (due > now and self._keeper is not None):
            return
        wanted = self._ledger.openings_wanted() if due <= now else 1
        for book in self._ledger.lanes.values():
            for wait in book.waiters:
                if wanted <= 0:
                    return
                if isinstance(wait, ThreadWait) and not wait.busy:
                    wait.called = True
                    wait.ring()
                    wanted -= 1

    def _step(self, book: LaneBook[Any], wait: ThreadWait) -> bool:
        """Open a connection or sleep; returns whether the wait is over."""
        # Why: what is given to a waiting thread is given for good, so that looking at it needs no lock.
        if wait.is_served():
            return True
        with self._lock:
            wait.woke()
            if wait.is_served() or wait.error is not None:
                return True
            now = time.monotonic()
            due = self._opening.due(now)
            # Why: a wait of no length may still open one connection, and no more.
            late = now >= wait.deadline and (due > now or wait.busy)
            if late:
                raise self._timed_out(book, wait, now)
            wait.busy, wait.called = due <= now, False
            seconds = self._opening.begin() if wait.busy else 0.0
            until = wait.deadline if wait.busy else self._sleep_until(wait, due)
        if wait.busy:
            self._opening.attempt(self._lock, min(seconds, max(wait.deadline - now, LEAST_OPENING)))
        else:
            wait.sleep(until - now)
        return False

    def _sleep_until(self, wait: ThreadWait, due: float) -> float:
        """Return when to look again; one thread alone keeps the time of the next attempt to open."""
        if due == NEVER and self._keeper is wait:
            # Why: others are opening, and whoever ends last looks for a keeper; this one would sleep through it.
            self._keeper = None
        if due == NEVER or self._keeper not in {None, wait}:
            return wait.deadline
        self._keeper = wait
        return min(wait.deadline, due)

    def _step_down(self, wait: ThreadWait) -> None:
        if self._keeper is wait:
            self._keeper = None
        wait.called = False
        self.nudge()

    def _timed_out(self, book: LaneBook[Any], wait: ThreadWait, now: float) -> Exception:
        ahead = sum(1 for other in book.waiters if other.since < wait.since)
        self._ledger.time_out(book, wait, now)
        return pool_timeout(
            self._name,
            str(book.lane),
            waited=now - wait.since,
            share=book.share,
            used=book.used,
            ahead=ahead,
            holders=self._ledger.holders(now, book.lane),
            opening_error=self._opening.last_error if book.used < book.share else None,
        )
