"""What a pool looks after from time to time: idle and old connections, long holds, exhaustion, and the line in the log.

All of it is one duty of the clock and one alarm; nothing here has a timer of its own.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from headrace.pool.figures import find_held
from headrace.pool.loops import weakly

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from headrace.clock import Clock
    from headrace.pool.figures import PoolStats
    from headrace.pool.lanes import Lane
    from headrace.pool.ledger import Ledger, Member
    from headrace.pool.options import PoolOptions

logger = logging.getLogger(__name__)

#: Least time between two looks for exhaustion while somebody waits, seconds.
LOOK_AGAIN: Final = 0.05


class Pool(Protocol):
    """What the upkeep needs of the pool."""

    name: str
    on_event: Callable[[str, dict[str, object]], None] | None

    def need(self) -> None:
        """Open what is wanted by now."""
        ...

    def retire(self, members: list[Member[AbstractConnection]]) -> None:
        """Close connections that the ledger has taken out."""
        ...

    @property
    def stats(self) -> Callable[[], PoolStats]:
        """Returns the figures."""
        ...


class Upkeep:
    """Look after one pool.

    Args:
        pool: Opens and closes.
        ledger: The book.
        options: Limits and durations.
        clock: Calls from time to time.
    """

    def __init__(self, pool: Pool, ledger: Ledger[AbstractConnection], options: PoolOptions, clock: Clock) -> None:
        self._pool = pool
        self._ledger = ledger
        self._options = options
        self._clock = clock
        owner = f"pool {pool.name}"
        self._duty = clock.every("look after connections", options.upkeep_interval, weakly(self.run), owner=owner)
        self._alarm = clock.alarm("look for exhaustion", weakly(self._look_for_exhaustion), owner=owner)
        #: What runs on the clock.
        self.runners = (self._duty, self._alarm)
        # Bounded by the lanes: those that are exhausted, and since when.
        self.exhausted: dict[Lane, float] = {}
        self._logged = time.monotonic()

    async def close(self) -> None:
        """Stop looking after it."""
        self._duty.close()
        self._alarm.close()

    def run(self) -> None:
        """Close what is idle or old, report long holds, keep the minimum, and write the line."""
        now = time.monotonic()
        self._ledger.turn(now)
        self.look_for_recovery(now)
        self._pool.retire(self._ledger.retire_surplus(now, self._options.idle_timeout))
        # It is not taken back.
        for facts in find_held(self._pool.name, self._ledger, self._options.held_warn, now):
            logger.warning("connection held too long", extra=facts)
        self._pool.need()
        interval = self._options.stats_interval
        if interval and now - self._logged >= interval * 0.95:
            self._logged = now
            logger.info("pool stats", extra=self._pool.stats().fields())

    def somebody_waits(self, since: float) -> None:
        """Note that a caller waits since a time; whether others make him wait is seen when he has waited for long."""
        if self._alarm.when is None:
            self._alarm.set(self._clock.now() + max(0.0, since + self._options.exhausted_after - time.monotonic()))

    def look_for_recovery(self, now: float) -> None:
        """Tell when a lane that was exhausted has nobody waiting any more."""
        for lane in [lane for lane in self.exhausted if not self._ledger.lanes[lane].waiters]:
            since = self.exhausted.pop(lane)
            facts = {"pool": self._pool.name, "lane": str(lane), "duration": round(now - since, 3)}
            logger.warning("pool recovered", extra=facts)
            self._tell("recovered", facts)

    def _look_for_exhaustion(self) -> None:
        now = time.monotonic()
        soonest: float | None = None
        for lane, book in self._ledger.lanes.items():
            if not book.waiters or lane in self.exhausted:
                continue
            since = book.first().since
            due = since + self._options.exhausted_after
            if book.used < book.share:
                # He waits for an opening; whoever gets the connection may hold it for long.
                due = now + max(LOOK_AGAIN, self._options.exhausted_after)
            if due > now:
                soonest = due if soonest is None else min(soonest, due)
                continue
            self.exhausted[lane] = since
            facts: dict[str, object] = {
                "pool": self._pool.name,
                "lane": str(lane),
                "share": book.share,
                "active": book.used,
                "waiting": len(book.waiters),
                "waited": round(now - since, 3),
            }
            logger.warning("pool exhausted", extra=facts)
            self._tell("exhausted", facts)
        if soonest is not None:
            self._alarm.set(self._clock.now() + soonest - now)

    def _tell(self, event: str, facts: dict[str, object]) -> None:
        if self._pool.on_event is None:
            return
        try:
            self._pool.on_event(event, facts)
        # The edge of a subscriber: whoever releases a connection has no part in its faults.
        except Exception:
            logger.exception("subscriber of a pool failed", extra={"pool": self._pool.name, "event": event})
