"""Waiting for a connection on an event loop: one future for each caller, and one alarm for the deadlines of all."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from headrace.pool.client_errors import pool_timeout
from headrace.pool.holders import tell_holders
from headrace.pool.loops import weakly

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from headrace.clock import Clock
    from headrace.pool.holders import Holder
    from headrace.pool.lanes import Lane
    from headrace.pool.ledger import Ledger, Member


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


class Deadlines:
    """End the waits whose time is up.

    Args:
        name: Name of the pool.
        ledger: The book.
        clock: Wakes for the next of them.
        opening_error: Returns why the last opening failed; None when it did not.
        passed: Called after some have ended.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger[AbstractConnection],
        clock: Clock,
        opening_error: Callable[[], Exception | None],
        passed: Callable[[float], None],
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._clock = clock
        self._opening_error = opening_error
        self._passed = passed
        self.alarm = clock.alarm("end waits", weakly(self._expire), owner=f"pool {name}")
        #: When the alarm comes, in time of the monotonic clock.
        self._watched = math.inf

    async def close(self) -> None:
        """Watch no more."""
        self.alarm.close()

    def watch(self, when: float) -> None:
        """Wake at a time of the monotonic clock, or sooner."""
        if when >= self._watched:
            return
        self._watched = when
        # The loop's clock may be another than the monotonic one.
        self.alarm.set(self._clock.now() + (when - time.monotonic()))

    def _expire(self) -> None:
        now = time.monotonic()
        self._watched = math.inf
        told: dict[Lane, tuple[list[Holder], str]] = {}
        for book, waiter, ahead in self._ledger.expire(now):
            if book.lane not in told:
                # Why: thousands may be late at once; who holds what is the same for all of them.
                holders = self._ledger.holders(now, book.lane)
                told[book.lane] = holders, tell_holders(holders)
            error = pool_timeout(
                self._name,
                str(book.lane),
                waited=now - waiter.since,
                share=book.share,
                used=book.used,
                ahead=ahead,
                holders=told[book.lane][0],
                told=told[book.lane][1],
                # Why: a lane whose share is used up is full; one that is not waits for the server.
                opening_error=self._opening_error() if book.used < book.share else None,
            )
            waiter.refuse(error)
        self._passed(now)
        deadline = self._ledger.next_deadline()
        if deadline is not None:
            self.watch(deadline)
