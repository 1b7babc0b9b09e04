"""What a pool looks after from time to time: idle and old connections, long holds, exhaustion, and the line in the log.

All of it is one duty of the clock and one alarm; nothing here has a timer of its own.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from headrace.pool.exhaustion import NEVER, Exhaustion
from headrace.pool.figures import find_held
from headrace.pool.loops import weakly

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from headrace.clock import Clock
    from headrace.pool.figures import PoolStats
    from headrace.pool.ledger import Ledger, Member
    from headrace.pool.options import PoolOptions

logger = logging.getLogger(__name__)


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
        self._exhaustion = Exhaustion(pool.name, ledger, options, pool.on_event)
        #: The lanes that are exhausted: empty, there is nothing to look for at a release.
        self.exhausted = self._exhaustion.since
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
        self._exhaustion.tell(self._exhaustion.find_over(now))

    def _look_for_exhaustion(self) -> None:
        now = time.monotonic()
        events, again = self._exhaustion.find(now)
        self._exhaustion.tell(events)
        if again < NEVER:
            self._alarm.set(self._clock.now() + again - now)
