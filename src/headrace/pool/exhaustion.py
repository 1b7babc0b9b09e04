"""When a lane of a pool makes callers wait for long, and when that is over."""

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

    Attributes:
        since: The lanes that are exhausted, and since when, by the monotonic clock; bounded by the lanes.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger[Any],
        options: PoolOptions,
        on_event: Callable[[str, dict[str, object]], None] | None,
    ) -> None:
        self.since: dict[Lane, float] = {}
        self._name = name
        self._ledger = ledger
        self._after = options.exhausted_after
        self._on_event = on_event

    def find(self, now: float) -> tuple[list[Event], float]:
        """Return what is to be told of lanes that are exhausted by now, and when the next may be, NEVER if none."""
        events: list[Event] = []
        again = NEVER
        for lane, book in self._ledger.lanes.items():
            if not book.waiters or lane in self.since:
                continue
            first = book.first().since
            due = first + self._after
            if book.used < book.share:
                # He waits for an opening; whoever gets the connection may hold it for long.
                due = self.look_again(now)
            if due > now:
                again = min(again, due)
                continue
            self.since[lane] = first
            facts: dict[str, object] = {"pool": self._name, "lane": str(lane), "share": book.share, "active": book.used}
            events.append(("exhausted", facts | {"waiting": len(book.waiters), "waited": round(now - first, 3)}))
        return events, again

    def find_over(self, now: float) -> list[Event]:
        """Return what is to be told of lanes that were exhausted and have nobody waiting any more."""
        events: list[Event] = []
        for lane in [lane for lane in self.since if not self._ledger.lanes[lane].waiters]:
            lasted = round(now - self.since.pop(lane), 3)
            events.append(("recovered", {"pool": self._name, "lane": str(lane), "duration": lasted}))
        return events

    def look_again(self, now: float) -> float:
        """Return when to look again while somebody waits."""
        return now + max(LOOK_AGAIN, self._after)

    def tell(self, events: list[Event]) -> None:
        """Log what was found and tell the subscriber; called without a lock."""
        for event, facts in events:
            logger.warning("pool exhausted" if event == "exhausted" else "pool recovered", extra=facts)
            if self._on_event is None:
                continue
            try:
                self._on_event(event, facts)
            # The edge of a subscriber: whoever releases a connection, or looks after it, has no part in its faults.
            except Exception:
                logger.exception("subscriber of a pool failed", extra={"pool": self._name, "event": event})
