"""What a worker does about calls that the server refuses: leave their queue alone for a moment, and tell it seldom."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from headrace.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.clock import Clock
    from headrace.worker.served import Served

logger = logging.getLogger(__name__)

#: What the server refused for a queue is sent again after this long, and told in the log at most so often, seconds.
REFUSED_AGAIN: Final = 0.2
REFUSED_REPORT: Final = 10.0
#: A queue whose node of a cluster stays away is tried again ever more seldom, at least this often, seconds.
AWAY_MOST: Final = 1.0


class Refusals:
    """Keep queues whose calls were refused from taking turns of the others.

    Args:
        clock: Its one alarm serves all queues that are left alone.
        again: Called when a queue is to be tried again.
    """

    def __init__(self, clock: Clock, again: Callable[[], None]) -> None:
        self._clock = clock
        self._alarm = clock.alarm("try refused queues again", self._due, owner="worker")
        self._again = again
        self._count = 0
        self._told_at = -REFUSED_REPORT
        #: Queues that are left alone, and until when; how long those were the last time whose node is away; bounded by
        #: the queues.
        self._alone: dict[Served, float] = {}
        self._away: dict[Served, float] = {}

    def take(self, served: Served, call: str, reason: Exception) -> None:
        """Count a refused call and leave its queue alone for a moment."""
        if isinstance(reason, ConnectionLost):
            # Why: one node of a cluster is away, and comes back; the queues on the others must not wait for it.
            wait = self._away[served] = min(AWAY_MOST, 2 * self._away.get(served, REFUSED_AGAIN / 2))
            self.leave_alone(served, wait)
            return
        self.leave_alone(served)
        self._count += 1
        now = time.monotonic()
        if now >= self._told_at + REFUSED_REPORT:
            logger.error(
                "the server refused a round trip; look at its log",
                extra={"queue": served.name, "call": call, "calls": self._count, "reason": str(reason)[:300]},
            )
            self._count, self._told_at = 0, now

    def leave_alone(self, served: Served, wait: float = REFUSED_AGAIN) -> None:
        """Send nothing for a queue for a moment, in seconds."""
        if served.refused:
            return
        served.refused = True
        when = self._alone[served] = self._clock.now() + wait
        if self._alarm.when is None or when < self._alarm.when:
            self._alarm.set(when)

    def forgive(self) -> None:
        """Leave no queue alone any longer: a connection was made anew, or another node has taken over."""
        for served in self._alone:
            served.refused = False
        self._alone.clear()
        self._away.clear()
        self._alarm.set(None)

    def close(self) -> None:
        """Let go of the alarm."""
        self.forgive()
        self._alarm.close()

    def _due(self) -> None:
        now = self._clock.now()
        for served in [served for served, when in self._alone.items() if when <= now]:
            del self._alone[served]
            served.refused = False
        self._alarm.set(min(self._alone.values(), default=None))
        self._again()
