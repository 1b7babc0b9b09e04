"""When a lane of a pool for threads makes callers wait for long, and when that is over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.pool.lanes import Lane
    from headrace.pool.ledger import Ledger
    from headrace.pool.options import PoolOptions

logger = logging.getLogger(__name__)

NEVER: Final = float("inf")
#: Least time between two looks while somebody waits, seconds.
LOOK_AGAIN: Final = 0.05

Event = tuple[str, dict[str, object]]


class Exhaustion:
    """Find the lanes whose first waiter waits for others to release, and tell when nobody waits any more.

    Args:
        name: Name of the pool.
        ledger: Its book.
        options: Says what is long.
        on_event: Told `exhausted` and `recovered`, with the facts.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger[Any],
        options: PoolOptions,
        on_event: Callable[[str, dict[str, object]], None] | None,
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._after = options.exhausted_after
        self._on_event = on_event
        # Bounded by the lanes: those that are exhausted, and since when.
        self._since: dict[Lane, float] = {}

    def look(self, now: float) -> tuple[list[Event], float]:
        """Return what is to be told, and when to look again; called under the lock of the pool."""
        events: list[Event] = []
        again = NEVER
        for lane, book in self._ledger.lanes.items():
            if not book.waiters:
                since = self._since.pop(lane, None)
                if since is not None:
                    facts: dict[str, object] = {"pool": self._name, "lane": str(lane)}
                    events.append(("recovered", facts | {"duration": round(now - since, 3)}))
                continue
            again = min(again, now + max(LOOK_AGAIN, self._after))
            first = next(iter(book.waiters)).since
            if lane in self._since or book.used < book.share or now - first < self._after:
                continue
            self._since[lane] = first
            facts = {"pool": self._name, "lane": str(lane), "share": book.share, "active": book.used}
            events.append(("exhausted", facts | {"waiting": len(book.waiters), "waited": round(now - first, 3)}))
        return events, again

    def tell(self, events: list[Event]) -> None:
        """Log what was found and tell the subscriber; called without the lock."""
        for event, facts in events:
            logger.warning("pool exhausted" if event == "exhausted" else "pool recovered", extra=facts)
            if self._on_event is None:
                continue
            try:
                self._on_event(event, facts)
            # The edge of a subscriber: the upkeep of all pools has no part in its faults.
            except Exception:
                logger.exception("subscriber of a pool failed", extra={"pool": self._name, "event": event})
