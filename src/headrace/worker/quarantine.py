"""Jobs that ran in lost workers again and again: one at a time, so that the one which kills takes no other along.

A job that ran when its worker was lost may be what killed it, or may only have been beside it. What ran there once is
started as any other; what ran there more often waits until no other such job runs in this worker. The one that kills is
then lost alone, until it is dead, and the others complete.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.worker.attempt import Attempt
    from headrace.worker.served import Served


class Quarantine:
    """Hold jobs back while another one like them runs.

    Args:
        max_stalled: A job that stalls more often is dead; with 1, the first time is already once too often.
    """

    def __init__(self, *, max_stalled: int) -> None:
        self.max_stalled(max_stalled)
        self._inside: Attempt | None = None
        # Bounded by what the worker reserves; flights count what is above the slots as buffered.
        self._waiting: deque[Attempt] = deque()

    def max_stalled(self, number: int) -> None:
        """Take the number of stalls that a job may have without being dead."""
        self._stalls = min(2, max(1, number))

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return len(self._waiting)

    def enter(self, attempt: Attempt) -> bool:
        """Tell whether a job may start now; one that may not is kept until `leave` returns it."""
        if attempt.state.stalls < self._stalls or self._inside is attempt:
            return True
        if self._inside is not None:
            self._waiting.append(attempt)
            return False
        self._inside = attempt
        return True

    def leave(self, attempt: Attempt) -> Attempt | None:
        """Note that a job ended, or does not start after all; returns the next one."""
        if self._inside is not attempt:
            return None
        self._inside = None
        return self._waiting.popleft() if self._waiting else None

    def take_back(self, served: Served | None = None) -> list[Attempt]:
        """Return the jobs that wait, of one queue or of all, and forget them."""
        taken = [attempt for attempt in self._waiting if served is None or attempt.served is served]
        self._waiting = deque(attempt for attempt in self._waiting if attempt not in taken)
        return taken

    def remove(self, attempt: Attempt) -> bool:
        """Forget a job that waits; False when it does not."""
        if attempt not in self._waiting:
            return False
        self._waiting.remove(attempt)
        return True
