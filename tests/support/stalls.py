"""Tell what the code took from what the machine took: moments at which nothing here ran are not counted.

A bound in real seconds is about the code: how soon a pool is there again, how long a call waits. On a machine that is
shared, all of the process may stand still for a second. A thread that does nothing but look at the clock sees it, as a
stopwatch that stands still together with what it times. What the code waits for, and a loop that it blocks with its own
work, do not keep the thread from looking, and so count in full.
"""

from __future__ import annotations

import threading
import time
from typing import Self

#: Seconds from look to look, and what a look may be late before that counts as a stall.
PACE = 0.01
LATE = 0.04


class Stalls:
    """Watch for stalls of the machine beside the block."""

    def __init__(self) -> None:
        self._found: list[tuple[float, float]] = []
        self._looked = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="look for stalls", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def lasted(self, began: float, ended: float | None = None) -> float:
        """Return the seconds from one moment (time.monotonic) to another, or to now, less those of stalls.

        Example:
            >>> stalls = Stalls()
            >>> stalls._found = [(1.0, 2.0), (4.0, 6.0), (9.0, 9.5)]
            >>> [stalls.lasted(*times) for times in ((0.0, 5.0), (4.5, 5.5), (7.0, 8.0), (0.0, 10.0))]
            [3.0, 0.0, 1.0, 6.5]
        """
        ended = time.monotonic() if ended is None else ended
        # A stall is known with the look that follows it.
        while self._thread.is_alive() and self._looked < ended:
            time.sleep(PACE / 2)
        lost = (min(end, ended) - max(start, began) for start, end in list(self._found))
        return ended - began - sum(each for each in lost if each > 0)

    @property
    def seconds(self) -> float:
        """All stalls so far."""
        return sum(end - start for start, end in list(self._found))

    def _look(self) -> None:
        while not self._over.wait(PACE):
            now = time.monotonic()
            if now - self._looked > PACE + LATE:
                self._found.append((self._looked + PACE, now))
            self._looked = now
