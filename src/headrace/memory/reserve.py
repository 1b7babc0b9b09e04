"""Address space that a worker under RLIMIT_AS holds back, to have some when everything else is used up.

A process that has reached that limit cannot read a reply, start a thread or hand a job back: it neither works nor ends.
The reserve takes no memory, only address space, and is given up when the step is critical, so that the worker can stop.
"""

from __future__ import annotations

import mmap


class Reserve:
    """Hold back some address space.

    Attributes:
        size_bytes: What is held back now.
    """

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self.size_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Hold back so much, unless something is held already or the system has no more."""
        if self._map is not None:
            return
        try:
            self._map = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, MemoryError):
            return
        self.size_bytes = size_bytes

    def release(self) -> None:
        """Give up what is held back; a second call does nothing."""
        if self._map is not None:
            self._map.close()
            self._map = None
            self.size_bytes = 0
