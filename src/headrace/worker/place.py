"""One of the places that a supervisor keeps filled, what the processes in it did, and how soon one may be replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.memory.restraint import QUICK
from headrace.retry import Exponential

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.clock import Clock
    from headrace.worker.child import Child

#: Processes in a row that used up their memory quickly, after which a person must look and replacements slow down.
MANY_QUICK: Final = 5
#: Waits from then on. The process takes no jobs meanwhile, for less than `headrace.memory.restraint.PATIENCE`.
SLOWER: Final = Exponential(base=1.0, maximum=30.0, jitter=False)


def count_quick(before: int, seconds: float) -> int:
    """Return how many processes in a row used up their memory quickly.

    Args:
        before: How many did so before the one that asks.
        seconds: How long that one ran.

    Example:
        >>> count_quick(3, 5.0), count_quick(3, 3_600.0)
        (4, 0)
    """
    return before + 1 if seconds < QUICK else 0


def quick_delay(quick: int) -> float:
    """Return how long the next process is waited for, seconds.

    Args:
        quick: How many in a row used up their memory quickly.

    Example:
        >>> [quick_delay(quick) for quick in (0, 4, 5, 6, 7, 50)]
        [0.0, 0.0, 1.0, 2.0, 4.0, 30.0]
    """
    return SLOWER.delay(quick - MANY_QUICK + 1) if quick >= MANY_QUICK else 0.0


@dataclass(slots=True)
class Tally:
    """What one place of a supervisor did, over all the processes that it had.

    Attributes:
        pid: Process id of the last one.
        starts: Processes started.
        crashes: Processes that ended without having been told to; what they did is not in the counts.
        completed: Jobs that completed.
        failed: Jobs that are dead.
        retried: Attempts that failed and were followed by another.
        seconds: Time that workers ran.
    """

    pid: int = 0
    starts: int = 0
    crashes: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Jobs completed in a second while workers ran."""
        return self.completed / self.seconds if self.seconds else 0.0

    def add(self, child: Child, *, crashed: bool) -> None:
        """Add a process that ended."""
        self.crashes += crashed
        self.seconds += child.seconds
        if child.stopped is not None:
            self.completed += child.stopped.completed
            self.failed += child.stopped.failed
            self.retried += child.stopped.retried


class Place:
    """One of the N processes that a supervisor keeps.

    Attributes:
        number: From 1.
        child: The process that fills it, None while it waits for a new one.
        fresh: The process that is to take over in a rolling restart.
        crashes: Crashes in a row without having run well.
        alarm: Rings when the wait before its next start is over.
        finished: Its process ended by itself as it should (burst), and needs no other.
        predecessor: How its last process ended, if it ran out of memory.
        quick: How many of its last processes in a row used up their memory soon after their start.
        asking: The process that waits for another one in its place.
        renewal: Rings when that wait is over.
    """

    def __init__(
        self, number: int, clock: Clock, start: Callable[[Place], None], renew: Callable[[Place], None]
    ) -> None:
        self.number = number
        self.alarm = clock.alarm(f"start worker process {number}", lambda: start(self), owner="supervisor")
        self.child: Child | None = None
        self.fresh: Child | None = None
        self.crashes = 0
        self.finished = False
        self.tally = Tally()
        self.predecessor = ""
        self.quick = 0
        self.asking: Child | None = None
        self.renewal = clock.alarm(f"renew worker process {number}", lambda: renew(self), owner="supervisor")
