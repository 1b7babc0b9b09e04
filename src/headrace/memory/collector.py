"""The collector of the interpreter in a worker: watched, and set so that it stops no batch of jobs in its middle.

What a worker loads at its start lives as long as it does; frozen, it is never looked at again. Young generations are
collected less often, and a full collection only when it is asked for, between two batches. `benchmarks/collector.py`
measures both ways of it.
"""

from __future__ import annotations

import contextlib
import gc
import time
from array import array
from dataclasses import dataclass
from typing import Final

#: Allocations beyond deallocations before the youngest generation is collected, and its collections before the next is.
YOUNG: Final = 5_000
MIDDLE: Final = 5
#: Collections of the middle generation before a full one: so many that only the worker itself ever asks for one.
NEVER: Final = 1_000_000
#: Seconds between full collections at least, and those after which one no longer waits for an idle moment.
FULL_INTERVAL: Final = 60.0
FULL_PATIENCE: Final = 30.0
#: Collections of the middle generation since the last full one that make another worth it.
FULL_AFTER: Final = 10
#: Pauses kept of each kind, seconds; 8 bytes each.
_PAUSES: Final = 512


@dataclass(frozen=True, slots=True)
class Pauses:
    """Pauses by the collector, in seconds: all since it is watched, quantiles of the latest 512.

    Attributes:
        count: Collections.
        p50: Half of them were shorter.
        p99: All but one in a hundred were shorter.
        maximum: The longest since it is watched.
        total: Their sum since it is watched.
    """

    count: int
    p50: float
    p99: float
    maximum: float
    total: float


@dataclass(frozen=True, slots=True)
class CollectorStats:
    """What the collector did and how it is set.

    Attributes:
        tuned: Whether it is set for a worker.
        frozen: Objects that it never looks at.
        thresholds: Those of its generations.
        collections: Collections by generation since it is watched.
        uncollectable: Objects that it found unreachable and could not free.
        pauses: Pauses of all its collections.
        full_pauses: Pauses of full collections alone.
        full_asked: Full collections that Headrace asked for.
    """

    tuned: bool
    frozen: int
    thresholds: tuple[int, int, int]
    collections: tuple[int, int, int]
    uncollectable: int
    pauses: Pauses
    full_pauses: Pauses
    full_asked: int


class PauseRing:
    """The latest pauses, in a fixed number of bytes."""

    def __init__(self) -> None:
        self._ring = array("d", bytes(8 * _PAUSES))
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0

    def add(self, seconds: float) -> None:
        """Add a pause."""
        self._ring[self.count % _PAUSES] = seconds
        self.count += 1
        self.total += seconds
        self.maximum = max(self.maximum, seconds)

    def stats(self) -> Pauses:
        """Return the figures."""
        latest = sorted(self._ring[: min(self.count, _PAUSES)])
        if not latest:
            return Pauses(0, 0.0, 0.0, 0.0, 0.0)
        p50, p99 = (latest[min(len(latest) - 1, int(len(latest) * share))] for share in (0.5, 0.99))
        return Pauses(self.count, p50, p99, self.maximum, self.total)

    @property
    def size_bytes(self) -> int:
        """What it holds, now and at most."""
        # The objects around it included.
        return self._ring.itemsize * len(self._ring) + 512


class Collector:
    """Watch the collector of this interpreter, and set it for a worker.

    There is one interpreter, so there is one of these in use at a time.
    """

    def __init__(self) -> None:
        self.is_tuned = False
        self.full_asked = 0
        self._before: tuple[int, int, int] | None = None
        self._pauses = PauseRing()
        self._full_pauses = PauseRing()
        self._collections = [0, 0, 0]
        self._uncollectable = 0
        self._began = 0.0
        self._middle_at_full = 0
        self._full_at = time.monotonic()

    def watch(self) -> None:
        """Begin to measure pauses; a second call does nothing."""
        if self._measure not in gc.callbacks:
            gc.callbacks.append(self._measure)

    def unwatch(self) -> None:
        """Stop measuring; a second call does nothing."""
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._measure)

    def tune(self) -> None:
        """Set it for a worker that has started: what there is now is kept for good."""
        if self.is_tuned:
            return
        self.is_tuned = True
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, MIDDLE, NEVER)
        self._full_at = time.monotonic()

    def restore(self) -> None:
        """Set it back to how it was."""
        if not self.is_tuned:
            return
        self.is_tuned = False
        gc.unfreeze()
        if self._before is not None:
            gc.set_threshold(*self._before)

    def is_full_due(self, now: float, *, idle: bool) -> bool:
        """Tell whether a full collection is due; a busy worker waits for an idle moment for a while.

        Args:
            now: Time, as `time.monotonic` gives it.
            idle: Whether no job runs.
        """
        if not self.is_tuned or self._collections[1] - self._middle_at_full < FULL_AFTER:
            return False
        return now - self._full_at >= FULL_INTERVAL + (0.0 if idle else FULL_PATIENCE)

    def collect(self) -> int:
        """Make a full collection now and return how many objects it freed."""
        self.full_asked += 1
        freed = gc.collect()
        self._middle_at_full = self._collections[1]
        self._full_at = time.monotonic()
        return freed

    def collect_frozen(self) -> int:
        """Make a full collection of what was frozen too, and freeze what is left; it takes longest of all."""
        frozen = self.is_tuned
        if frozen:
            gc.unfreeze()
        freed = self.collect()
        if frozen:
            gc.freeze()
        return freed

    def stats(self) -> CollectorStats:
        """Return what it did and how it is set."""
        young, middle, full = self._collections
        return CollectorStats(
            tuned=self.is_tuned,
            frozen=gc.get_freeze_count(),
            thresholds=gc.get_threshold(),
            collections=(young, middle, full),
            uncollectable=self._uncollectable,
            pauses=self._pauses.stats(),
            full_pauses=self._full_pauses.stats(),
            full_asked=self.full_asked,
        )

    @property
    def size_bytes(self) -> int:
        """What its figures hold, now and at most."""
        return self._pauses.size_bytes + self._full_pauses.size_bytes

    def _measure(self, phase: str, info: dict[str, int]) -> None:
        """Take the time of a collection; the interpreter calls it at the start and the end of each."""
        if phase == "start":
            self._began = time.perf_counter()
            return
        seconds = time.perf_counter() - self._began
        generation = info["generation"]
        self._collections[generation] += 1
        self._uncollectable += info["uncollectable"]
        self._pauses.add(seconds)
        if generation == len(self._collections) - 1:
            self._full_pauses.add(seconds)
