"""Take changed settings in a running worker: slots, limits of queues, the lease, what is kept; no job is lost by it.

What runs goes on. Jobs that were reserved for slots or places that there are no more are handed back, with their
attempts, so that other workers take them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.settings import Settings
    from headrace.worker.running import Running
    from headrace.worker.served import Served
    from headrace.worker.worker import Worker

logger = logging.getLogger(__name__)


class Retuning:
    """Retune the parts of one running worker.

    Args:
        worker: The worker.
        parts: What runs in it.
    """

    def __init__(self, worker: Worker, parts: Running) -> None:
        self._worker = worker
        self._parts = parts
        #: A reserve under way may bring more jobs than there are slots now.
        self._shrunk = False
        #: Most slots that memory leaves, None for all.
        self._most: int | None = None

    async def retune(self, before: Settings, after: Settings) -> list[str]:
        """Take what has changed; returns variables that do not count for this worker, each with the reason."""
        parts = self._parts
        kept: list[str] = []
        if before.queue_concurrency != after.queue_concurrency:
            if self._worker.follows_settings:
                self.resize(after.queue_concurrency)
            else:
                kept.append(f"QUEUE_CONCURRENCY (argument of worker {self._worker.id})")
        if before.queue_limits != after.queue_limits:
            kept += self._limit(dict(after.queue_limits))
        parts.flights.retune()
        parts.slots.slow_step = after.loop_lag_warn
        parts.slots.quarantine.max_stalled(after.max_stalled)
        for runner in parts.runners.values():
            runner.retune()
        if before.lease != after.lease:
            await parts.leases.retime(after.lease)
        self._shrunk = True
        parts.flights.kick()
        parts.waking.changed()
        return kept

    def resize(self, concurrency: int) -> None:
        """Take another number of slots, at once.

        Args:
            concurrency: Slots, 1..10000.
        """
        self._worker.concurrency = self._parts.registration.concurrency = concurrency
        self._resize_slots()

    def restrain(self, most: int | None) -> None:
        """Use no more slots than this, whatever number of them the worker has; None for all of them."""
        self._most = most
        self._resize_slots()

    def _resize_slots(self) -> None:
        parts, most = self._parts, self._most
        concurrency = self._worker.concurrency
        parts.slots.resize(concurrency if most is None else min(concurrency, most))
        self._give_back_surplus()
        self._shrunk = True
        parts.flights.kick()
        parts.waking.changed()

    async def announce(self) -> None:
        """Say in the registry which settings this worker has."""
        await self._parts.registration.register()

    def figures(self) -> dict[str, int]:
        """Return concurrency, running and buffered of now, and what has completed and failed."""
        stats, slots = self._parts.stats(), self._parts.slots
        return {
            "concurrency": slots.concurrency,
            "running": stats.running,
            "buffered": stats.buffered,
            "completed": stats.completed,
            "failed": stats.failed,
        }

    def looked(self) -> None:
        """Hand back what a round trip, asked for before a change, has brought too much; called after each of them."""
        if self._shrunk:
            self._shrunk = False
            self._give_back_surplus()

    def _limit(self, limits: dict[str, int]) -> list[str]:
        kept = []
        for served in self._parts.queues.values():
            if self._worker.queues[served.name] is not None:
                if served.name in limits:
                    kept.append(f"HEADRACE_QUEUE_LIMITS of '{served.name}' (argument of worker {self._worker.id})")
                continue
            served.limit = limits.get(served.name)
            self._let_go(served)
        return kept

    def _let_go(self, served: Served) -> None:
        """Let parked jobs start that may now, and hand back those that may not for long."""
        slots, settling = self._parts.slots, self._parts.settling
        most = len(served.attempts) if served.limit is None else served.limit
        while served.parked and len(served.parked) + served.running > most:
            settling.hand_back(served.parked.pop())
        parked = list(served.parked)
        served.parked.clear()
        slots.put(parked)
        waiting = [attempt for attempt in slots.buffer if attempt.served is served]
        for attempt in waiting[max(0, most - served.running) :]:
            if slots.drop(attempt):
                settling.hand_back(attempt)

    def _give_back_surplus(self) -> None:
        slots = self._parts.slots
        room = max(0, slots.free)
        for attempt in list(slots.buffer)[room:]:
            if slots.drop(attempt):
                self._parts.settling.hand_back(attempt)
