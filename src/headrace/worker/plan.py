"""How many jobs to ask for, from which queues: pure arithmetic, apart from everything that waits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: Work that is held ahead of the slots, in seconds of this worker's own throughput: a few round trips.
HORIZON: Final = 0.016
#: Jobs held ahead at most, and jobs asked for in one round trip at most.
MAX_PREFETCH: Final = 1_000
MAX_ASK: Final = 2_000


@dataclass(frozen=True, slots=True)
class Ask:
    """What to reserve: jobs that start at once, and further ones that are only held."""

    start: int
    prefetch: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.start + self.prefetch


def plan_prefetch(rate: float, concurrency: int) -> int:
    """Return how many jobs to hold ahead of the slots.

    Args:
        rate: Jobs this worker finishes in a second while it has work.
        concurrency: Its slots.

    Slow jobs are not held ahead, so that they go to workers that are free.

    Example:
        >>> plan_prefetch(50_000.0, 100), plan_prefetch(10_000.0, 100), plan_prefetch(20.0, 100)
        (400, 160, 0)
    """
    return min(MAX_PREFETCH, 4 * concurrency, int(rate * HORIZON))


def plan_ask(free: int, buffered: int, target: int, most: int = MAX_ASK) -> Ask:
    """Return what is missing.

    Args:
        free: Slots without a job.
        buffered: Jobs that wait for a slot in this worker.
        target: Jobs to hold ahead.
        most: Jobs that one round trip may bring; large records bring fewer.

    Example:
        >>> plan_ask(free=100, buffered=0, target=0), plan_ask(free=0, buffered=10, target=80)
        (Ask(start=100, prefetch=0), Ask(start=0, prefetch=70))
    """
    room = free - buffered
    most = min(most, MAX_ASK)
    start = min(most, max(0, room))
    prefetch = min(most - start, max(0, target + min(0, room)))
    return Ask(start, prefetch)


def share(ask: Ask, queues: int, turn: int) -> Ask:
    """Return the part of one of several queues; all parts together are what is asked for, and differ by one at most.

    Args:
        ask: What is asked for.
        queues: How many queues share it.
        turn: Which of them this is, from 0; the first ones get what cannot be split evenly.

    Example:
        >>> [share(Ask(4, 0), 3, turn).start for turn in range(3)]
        [2, 1, 1]
    """
    return Ask(
        ask.start // queues + (turn < ask.start % queues),
        ask.prefetch // queues + (turn < ask.prefetch % queues),
    )


class Rate:
    """Jobs finished in a second while there was work: a moving average over about a tenth of a second of work."""

    __slots__ = ("_jobs", "_seconds", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._jobs = 0.0
        self._seconds = 0.0

    def add(self, jobs: int, seconds: float) -> None:
        """Add what was finished during a time in which there was work.

        Example:
            >>> rate = Rate()
            >>> rate.add(100, 0.01)
            >>> round(rate.value)
            10000
        """
        fade = math.exp(-seconds / 0.1)
        self._jobs = self._jobs * fade + jobs
        self._seconds = self._seconds * fade + seconds
        if self._seconds > 0:
            self.value = self._jobs / self._seconds
