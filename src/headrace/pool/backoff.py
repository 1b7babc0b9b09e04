"""How long to wait before the next attempt to open a connection."""

from __future__ import annotations

import random
import time
from typing import Final

#: Back-off between attempts to open, seconds: full jitter up to 20 ms, 40 ms ... and never above 500 ms.
#: Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).
BACKOFF_FIRST: Final = 0.02
BACKOFF_MOST: Final = 0.5
#: A connection that breaks sooner was none, seconds: the wait before the next one goes on growing, so that a server
#: that accepts and then refuses, such as a replica, is not flooded.
STOOD: Final = 1.0


class Backoff:
    """Space out the openings of one link: none waits for the first attempt after a connection that stood."""

    def __init__(self) -> None:
        self._most = 0.0
        self._opened_at = float("-inf")

    def begin(self) -> None:
        """Note that a connection is wanted again."""
        if time.monotonic() - self._opened_at > STOOD:
            self._most = 0.0

    def next_wait(self) -> float:
        """Return how long to wait before the next attempt, seconds."""
        most = self._most
        self._most = min(BACKOFF_MOST, most * 2 or BACKOFF_FIRST)
        return random.uniform(0, most)  # noqa: S311 - jitter, no secret

    def opened(self) -> None:
        """Note that an attempt succeeded."""
        self._opened_at = time.monotonic()
