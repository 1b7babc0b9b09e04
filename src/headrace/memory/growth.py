"""How fast memory grows: a slope that single spikes do not bend, with the range in which it lies.

Source: P. K. Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", Journal of the American Statistical
Association 63 (1968): the median of the slopes between all pairs of points, and its interval by ranks. The rank of the
interval's ends by the normal approximation: R. O. Gilbert, "Statistical Methods for Environmental Pollution Monitoring"
(1987), 16.5. Memory depends on what it was a moment ago, so the true range is somewhat wider than the interval says;
whoever decides by it therefore also asks for an amount that matters.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Quantile of the normal distribution for an interval of 95 %.
_Z: Final = 1.959964
#: A point of a series: a tuple, two floats and their places, in bytes.
_POINT_BYTES: Final = 56 + 2 * 24 + 8


@dataclass(frozen=True, slots=True)
class Slope:
    """A change by the second.

    Attributes:
        value: The estimate.
        low: Lower end of its 95 % interval; `-inf` when there are too few points to say.
        high: Upper end of it.
        points: How many points it rests on.
        seconds: Time from the first of them to the last.
    """

    value: float
    low: float
    high: float
    points: int
    seconds: float

    @property
    def grows(self) -> bool:
        """Whether there is growth beyond doubt of 95 %."""
        return self.low > 0.0


NO_SLOPE: Final = Slope(0.0, -math.inf, math.inf, 0, 0.0)


def fit_slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Return the Theil-Sen slope of points (time, value) with its interval.

    Args:
        points: In any order; several at the same time say nothing about each other. Takes time with the square of
            their number.

    Example:
        >>> slope = fit_slope([(second, 2.0 * second + 99.0 * (second == 5)) for second in range(12)])
        >>> slope.value, slope.grows
        (2.0, True)
    """
    count = len(points)
    slopes = sorted(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for at, earlier in enumerate(points)
        for later in points[at + 1 :]
        if later[0] != earlier[0]
    )
    if not slopes:
        return Slope(0.0, -math.inf, math.inf, count, 0.0)
    times = [point[0] for point in points]
    spread = _Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    first = math.floor((len(slopes) - spread) / 2)
    last = math.ceil((len(slopes) + spread) / 2)
    low = slopes[first - 1] if first >= 1 else -math.inf
    high = slopes[last] if last < len(slopes) else math.inf
    middle = (slopes[(len(slopes) - 1) // 2] + slopes[len(slopes) // 2]) / 2
    return Slope(middle, low, high, count, max(times) - min(times))


class Series:
    """The latest points of a figure, and the least value of each group of them over a longer time.

    The least value is what is left when passing needs are gone: a leak lifts it, a burst does not.

    Args:
        recent: Points that are kept as they are.
        floors: Groups whose least value is kept.
        group: Points in a group.
    """

    def __init__(self, *, recent: int = 12, floors: int = 60, group: int = 6) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=recent)
        self._floors: deque[tuple[float, float]] = deque(maxlen=floors)
        self._group = group
        self._lowest: tuple[float, float] | None = None
        self._count = 0

    def add(self, when: float, value: float) -> None:
        """Add a point; `when` is not before that of the last one."""
        self._recent.append((when, value))
        if self._lowest is None or value < self._lowest[1]:
            self._lowest = (when, value)
        self._count += 1
        if self._count >= self._group:
            self._floors.append(self._lowest)
            self._lowest, self._count = None, 0

    @property
    def is_group_complete(self) -> bool:
        """Whether the last point ended a group, so that the long slope is worth another look."""
        return self._count == 0 and bool(self._floors)

    def recent(self) -> Slope:
        """Fit the slope of the latest points."""
        return fit_slope(list(self._recent)) if self._recent else NO_SLOPE

    def lasting(self) -> Slope:
        """Fit the slope of the least values."""
        return fit_slope(list(self._floors)) if self._floors else NO_SLOPE

    @property
    def size_bytes(self) -> int:
        """What it holds now."""
        return (len(self._recent) + len(self._floors)) * _POINT_BYTES

    @property
    def limit_bytes(self) -> int:
        """What it holds at most."""
        return ((self._recent.maxlen or 0) + (self._floors.maxlen or 0)) * _POINT_BYTES
