"""The size of a pool that follows its load: grow fast while callers wait, shrink slowly when all is calm.

Pure: it is fed one window of figures after the other and answers with a change or with none. Time is the sum of the
windows' intervals. It decides how many connections may be borrowed at once; what the app's own parts need is added by
whoever applies it.

The mean number in use is arrival rate times service time (Little's law). While callers wait, that product only tells
what the pool gives, so those who wait are added; then comes head room for chance.

Source: J. D. C. Little, "A Proof for the Queuing Formula: L = λW", Operations Research 9(3), 1961.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from headrace.sizing.demand import head_room

#: A change of the size is at most to the double, and at most down to three quarters.
GROW_MOST: Final = 2.0
SHRINK_MOST: Final = 0.75
#: Windows after a change in which waits that have ended say nothing: they began before it.
SETTLING: Final = 3
#: Longest time for which a size that was too small is remembered, seconds.
HOLD_MOST: Final = 3_600.0
#: A size that proves too small again within so many times that time is remembered for twice as long.
AGAIN_WITHIN: Final = 4.0


@dataclass(frozen=True, slots=True)
class AutoOptions:
    """How quickly the size follows the load; durations are seconds.

    Attributes:
        interval: Length of one window.
        target_wait: Waits above it, on average within a window, make the pool grow.
        calm_windows: Windows without waits before it shrinks.
        step: Smallest change.
        hold: For so long a size at which callers had to wait is not gone back to; twice as long each time that it
            proves too small again, at most HOLD_MOST.
    """

    interval: float = 1.0
    target_wait: float = 0.010
    calm_windows: int = 30
    step: int = 2
    hold: float = 60.0


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen in one interval.

    Attributes:
        interval: Its length, seconds.
        arrivals: Calls that ended, a second.
        service: Seconds that a call held its connection, on average.
        wait: Seconds that a call waited for it, on average.
        in_use: Connections in use at the end.
        waiting: Callers that waited at the end.
        full: Whether every place was used, so that callers waited for places and not for connections being opened.
        wait_p99: 99 % of the waits of the last minute or two were at most this long, seconds; for the explanation.
        waiting_highest: Most callers that waited at once in the last minute; for the explanation.
    """

    interval: float
    arrivals: float
    service: float
    wait: float
    in_use: int
    waiting: int
    full: bool = False
    wait_p99: float = 0.0
    waiting_highest: int = 0

    @property
    def load(self) -> float:
        """Mean number of connections in use, by Little's law."""
        return self.arrivals * self.service


@dataclass(frozen=True, slots=True)
class Change:
    """Another size, and why, as one text."""

    size: int
    reason: str


class Controller:
    """Decide how many connections may be borrowed at once.

    Args:
        size: The size to begin with.
        options: How quickly it follows the load.

    Invariant: a change lies within the bounds that were handed in with the window, or leads towards them.
    """

    def __init__(self, size: int, options: AutoOptions | None = None) -> None:
        self.options = options or AutoOptions()
        self.size = size
        self._calm = 0
        self._settled = SETTLING
        # Bounded: as many as have to be calm.
        self._seen: deque[Window] = deque(maxlen=max(1, self.options.calm_windows))
        #: The largest size at which callers had to wait, and for how long it is still remembered.
        self._too_small = 0
        self._held = self._hold = self._since_grown = 0.0

    def decide(self, window: Window, lowest: int, highest: int) -> Change | None:
        """Take one window, and return the size that should follow, or None to leave it.

        Args:
            window: What was seen since the last call.
            lowest: Least size, at least 1.
            highest: Most, as far as is known; when it is below `lowest`, that counts.

        The caller applies the change, all or part of it, and says so by `applied`.
        """
        highest = max(lowest, highest)
        self._held = max(0.0, self._held - window.interval)
        self._since_grown += window.interval
        self._settled += 1
        self._seen.append(window)
        if not lowest <= self.size <= highest:
            return Change(min(max(self.size, lowest), highest), "its bounds have moved")
        if self._is_pressed(window):
            self._calm = 0
            return self._grow(window, highest)
        if window.waiting or window.wait > self.options.target_wait / 4:
            self._calm = 0
            return None
        self._calm += 1
        return self._shrink(lowest)

    def applied(self, size: int) -> None:
        """Note the size that the pool has now."""
        if size > self.size:
            # What proves too small once more, soon after, is remembered for longer.
            again = self.size <= self._too_small and self._since_grown < AGAIN_WITHIN * self._hold
            self._hold = min(HOLD_MOST, self._hold * 2) if again else self.options.hold
            self._too_small, self._held = max(self.size, self._too_small if again else 0), self._hold
            self._since_grown = 0.0
        if size != self.size:
            self._calm = self._settled = 0
        self.size = size

    def _is_pressed(self, window: Window) -> bool:
        # Why: a server that answers nobody makes everybody wait, and more connections to it change nothing.
        if window.arrivals <= 0.0 or not window.full:
            return False
        # Those who wait now will wait for about so long: a place comes free each `service / size`.
        if window.waiting * window.service > self.options.target_wait * self.size:
            return True
        return window.wait > self.options.target_wait and self._settled > SETTLING

    def _grow(self, window: Window, highest: int) -> Change | None:
        # Those who waited between two looks: their mean number, by Little's law once more.
        waiting = window.waiting or round(window.arrivals * window.wait)
        offered = max(min(window.load, float(self.size)), float(window.in_use)) + waiting
        wanted = max(head_room(offered), self.size + self.options.step)
        size = min(wanted, max(int(self.size * GROW_MOST), self.size + self.options.step), highest)
        if size <= self.size:
            return None
        text = f"callers waited {window.wait * 1000:.0f} ms on average, {window.waiting} wait now"
        return Change(size, f"{text}, {offered:.0f} are wanted at once")

    def _shrink(self, lowest: int) -> Change | None:
        if self._calm < self.options.calm_windows:
            return None
        used = max(window.in_use for window in self._seen)
        # Why: a mean cannot be above the most that were seen; the figures may count calls that need no connection here.
        mean = min(sum(window.load for window in self._seen) / len(self._seen), float(used))
        floor = self._too_small + self.options.step if self._held > 0.0 else 0
        wanted = max(head_room(mean), used, floor, lowest)
        size = max(wanted, int(self.size * SHRINK_MOST))
        # Why: a size that is nearly right stays, or a load that changes a little would move it each time.
        if wanted > self.size * SHRINK_MOST or self.size - size < self.options.step:
            return None
        calm = f"nobody waited for {self._calm * self.options.interval:.0f} s"
        return Change(size, f"{calm}, {mean:.1f} were in use on average, {used} at most")
