"""Histograms of durations in a fixed number of bytes: cheap to record into, percentiles within 7 %.

A duration falls into one of 241 buckets: eight for each power of two of microseconds, as in an HDR histogram. What is
recorded costs no memory. `RecentHistogram` answers for the last one to two windows, so that old figures fade, and for
all time, for whoever compares two moments.

Source: G. Tene, "HdrHistogram", hdrhistogram.org, 2012-2019 (buckets linear within powers of two).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Buckets within one power of two.
STEPS: Final = 8
#: Buckets in all: durations up to 2 ** 32 us, some 71 minutes; longer ones count in the last bucket.
BUCKETS: Final = 241
#: Bytes of the counts of one histogram.
HISTOGRAM_BYTES: Final = BUCKETS * 8
#: What the two below hold at most, their objects and numbers included.
RECENT_HISTOGRAM_BYTES: Final = 3 * HISTOGRAM_BYTES + 1_600
RECENT_MAXIMUM_BYTES: Final = 2 * (60 * (8 + 28) + 64) + 256


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How long something took, in seconds; all zero when nothing was recorded.

    Attributes:
        count: Durations recorded.
        mean: Their average.
        p50: Half of them took at most this long, within 7 %.
        p95: 95 % of them did.
        p99: 99 % of them did.
        maximum: The longest, exactly.
    """

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    maximum: float = 0.0


class Histogram:
    """Count durations in buckets.

    Example:
        >>> histogram = Histogram()
        >>> for milliseconds in range(1, 101):
        ...     histogram.record(milliseconds / 1000)
        >>> found = histogram.quantiles()
        >>> found.count, round(found.mean, 4), found.maximum
        (100, 0.0505, 0.1)
        >>> abs(found.p50 - 0.050) < 0.004, abs(found.p99 - 0.099) < 0.007
        (True, True)
    """

    __slots__ = ("counts", "longest", "total", "zeros")

    def __init__(self) -> None:
        #: Durations of nothing at all, such as waits that did not happen; callers may add to it directly.
        self.zeros = 0
        self.total = 0.0
        self.longest = 0.0
        # Bounded: a fixed array, HISTOGRAM_BYTES.
        self.counts = array("Q", bytes(HISTOGRAM_BYTES))

    def record(self, seconds: float) -> None:
        """Count one duration; a negative one counts as none."""
        microseconds = int(seconds * 1_000_000.0)
        if microseconds <= 0:
            self.zeros += 1
            return
        self.total += seconds
        # Measured: a comparison costs a third of a call of `max`.
        if seconds > self.longest:  # noqa: PLR1730 - the hot path
            self.longest = seconds
        self.counts[_SHORT[microseconds] if microseconds < SHORT else bucket_of(microseconds)] += 1

    def add(self, other: Histogram) -> None:
        """Count everything that another histogram has counted."""
        self.zeros += other.zeros
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        counts = self.counts
        for index, count in enumerate(other.counts):
            if count:
                counts[index] += count

    def below(self, powers: Sequence[int]) -> list[int]:
        """Count durations between powers of two, which the edges of buckets are.

        Args:
            powers: Exponents of microseconds, ascending, 3..32.

        Returns:
            How many were shorter than the first, then how many between each two, and how many were not shorter than
            the last.

        Example:
            >>> histogram = Histogram()
            >>> for microseconds in (0, 900, 1_030, 5_000):
            ...     histogram.record(microseconds / 1_000_000)
            >>> histogram.below([10, 11])  # 1.024 and 2.048 ms
            [2, 1, 1]
        """
        edges = [0, *((power - 2) << 3 for power in powers), BUCKETS]
        counts = [sum(self.counts[low:high]) for low, high in pairwise(edges)]
        counts[0] += self.zeros
        return counts

    def clear(self) -> None:
        """Forget everything."""
        self.zeros, self.total, self.longest = 0, 0.0, 0.0
        self.counts = array("Q", bytes(HISTOGRAM_BYTES))

    def quantiles(self) -> Quantiles:
        """Return count, mean, percentiles and maximum."""
        count = self.zeros + sum(self.counts)
        if count == 0:
            return Quantiles()
        return Quantiles(
            count=count,
            mean=self.total / count,
            p50=self._at(count * 0.50),
            p95=self._at(count * 0.95),
            p99=self._at(count * 0.99),
            maximum=self.longest,
        )

    def _at(self, rank: float) -> float:
        seen = self.zeros
        if seen >= rank:
            return 0.0
        for index, count in enumerate(self.counts):
            seen += count
            if seen >= rank:
                return min(bucket_middle(index), self.longest)
        return self.longest


class RecentHistogram:
    """Count durations, and answer for the last one to two windows, or for all of them.

    Args:
        window: Seconds of one window, 1 <= window <= 3600.
    """

    __slots__ = ("_before", "_past", "_since", "current", "window")

    def __init__(self, window: float = 60.0) -> None:
        self.window = window
        #: Where durations are recorded.
        self.current = Histogram()
        self._before = Histogram()
        #: Everything before these two.
        self._past = Histogram()
        self._since = 0.0

    def turn(self, now: float) -> None:
        """Begin a new window when this one is over; called by whoever keeps time, and before each answer."""
        if self._since == 0.0:
            self._since = now
        elapsed = now - self._since
        if elapsed < self.window:
            return
        self._since = now
        self._past.add(self._before)
        self._before, self.current = self.current, self._before
        self.current.clear()
        if elapsed >= 2 * self.window:
            self._past.add(self._before)
            self._before.clear()

    def quantiles(self, now: float) -> Quantiles:
        """Return the figures of the last one to two windows."""
        self.turn(now)
        merged = Histogram()
        merged.add(self._before)
        merged.add(self.current)
        return merged.quantiles()

    def ever(self) -> Histogram:
        """Return everything that was counted since it was made."""
        merged = Histogram()
        for part in (self._past, self._before, self.current):
            merged.add(part)
        return merged


class RecentMaximum:
    """The largest value of the last minute, in sixty slots of one second."""

    __slots__ = ("_seconds", "_values", "last", "until")

    def __init__(self) -> None:
        #: The largest value of the second that ends at `until`: a value that is no larger need not be recorded then.
        self.last = 0
        self.until = 0
        # Bounded: sixty slots each.
        self._values = [0] * 60
        self._seconds = [-60] * 60

    def record(self, value: int, now: float) -> None:
        """Note a value at a time in seconds."""
        second = int(now)
        slot = second % 60
        if self._seconds[slot] != second:
            self._seconds[slot] = second
            self._values[slot] = value
        elif value > self._values[slot]:
            self._values[slot] = value
        self.last, self.until = self._values[slot], second + 1

    def highest(self, now: float) -> int:
        """Return the largest value of the last sixty seconds, 0 without any."""
        oldest = int(now) - 60
        pairs = zip(self._seconds, self._values, strict=True)
        return max((value for second, value in pairs if second > oldest), default=0)


def bucket_of(microseconds: int) -> int:
    """Return the bucket of a duration in microseconds, at least 1.

    Example:
        >>> [bucket_of(microseconds) for microseconds in (1, 8, 16, 17, 10**12)]
        [1, 8, 16, 16, 240]
    """
    # Why: below eight microseconds each has its own bucket; above, the three bits after the first tell the step.
    if microseconds < STEPS:
        return microseconds
    length = microseconds.bit_length()
    return min(BUCKETS - 1, ((length - 3) << 3) | ((microseconds >> (length - 4)) & 7))


#: The buckets of durations below SHORT microseconds, looked up: most durations are that short.
SHORT: Final = 4_096
_SHORT: Final = bytes(bucket_of(microseconds) for microseconds in range(SHORT))


def bucket_middle(index: int) -> float:
    """Return the duration in the middle of a bucket, in seconds."""
    if index < STEPS:
        return index / 1_000_000.0
    exponent, step = index >> 3, index & 7
    low = (STEPS | step) << (exponent - 1)
    return (low + (1 << (exponent - 1)) / 2) / 1_000_000.0
