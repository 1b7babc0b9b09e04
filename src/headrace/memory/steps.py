"""In which step the memory of a process is, and how often relief may be tried: arithmetic, apart from what acts on it.

A step is entered as soon as its threshold is reached, and left only well below it, so that a figure which hovers around
a threshold causes one change and not one a reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

#: So far below its threshold a step ends, and less where steps are close together.
MARGIN: Final = 0.05
#: Least time between two attempts to free memory, unless the last one was worth it, seconds.
PAUSE: Final = 300.0
#: Least time even then.
PAUSE_WORTHWHILE: Final = 30.0
#: Share of what was used that an attempt must free to be worth another one soon.
WORTHWHILE: Final = 0.05
#: Share below which an attempt was in vain.
IN_VAIN: Final = 0.01
#: Attempts in vain in a row after which no more are made.
MOST_IN_VAIN: Final = 2
#: Share of the budget that must be added after that before it is worth another look.
MORE: Final = 0.10


class Step(IntEnum):
    """How close the memory of a process is to its limit."""

    NORMAL = 0
    ELEVATED = 1
    HIGH = 2
    CRITICAL = 3

    @property
    def word(self) -> str:
        """The name as it stands in events and in the log."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares of the budget at which steps begin, and how far below each it ends.

    Example:
        >>> Thresholds.of(80)
        Thresholds(elevated=0.8, high=0.9, critical=0.95, margin=0.05)
    """

    elevated: float
    high: float
    critical: float
    margin: float

    @classmethod
    def of(cls, percent: float) -> Thresholds:
        """Return the thresholds for one percentage: high is halfway between it and the limit, critical again halfway.

        Args:
            percent: Where the step elevated begins, 20..95.
        """
        room = 1.0 - percent / 100
        shares = (round(1.0 - room / divisor, 6) for divisor in (1, 2, 4))
        elevated, high, critical = shares
        return cls(elevated, high, critical, round(min(MARGIN, room / 4), 6))

    def begin(self, step: Step) -> float:
        """Return the share at which a step begins."""
        return (0.0, self.elevated, self.high, self.critical)[step]


def next_step(step: Step, share: float, thresholds: Thresholds) -> Step:
    """Return the step that follows from a reading.

    Args:
        step: The present one.
        share: Used memory by budget; 1.0 is the limit.
        thresholds: Where steps begin and end.

    Example:
        >>> thresholds = Thresholds.of(80)
        >>> [next_step(Step.ELEVATED, share, thresholds).word for share in (0.96, 0.85, 0.78, 0.74)]
        ['critical', 'elevated', 'elevated', 'normal']
    """
    for higher in (Step.CRITICAL, Step.HIGH, Step.ELEVATED):
        if higher > step and share >= thresholds.begin(higher):
            return higher
    while step > Step.NORMAL and share < thresholds.begin(step) - thresholds.margin:
        step = Step(step - 1)
    return step


def plan_slots(allowed: int, concurrency: int, step: Step) -> int:
    """Return how many slots a worker may use from now on: half as many at each reading in `high`, twice below it.

    Args:
        allowed: What it may use now.
        concurrency: What it has.
        step: The present step.

    Example:
        >>> plan_slots(100, 100, Step.HIGH), plan_slots(1, 100, Step.HIGH), plan_slots(1, 100, Step.CRITICAL)
        (50, 1, 1)
        >>> plan_slots(50, 100, Step.NORMAL), plan_slots(3, 100, Step.ELEVATED)
        (100, 6)
    """
    if step is Step.CRITICAL:
        return 1
    if step is Step.HIGH:
        return max(1, min(allowed, concurrency) // 2)
    return min(concurrency, max(1, allowed) * 2)


class Pacing:
    """Decide when an attempt to free memory is due.

    Attempts are 5 minutes apart unless the last one was worth it. After two in a row that freed under 1 % no more are
    made, until the process was back to normal or uses a tenth of its budget more: what is held is no garbage.

    Attributes:
        is_held: Attempts were in vain, so that no more are made.
    """

    def __init__(self) -> None:
        self.is_held = False
        self._next_at = float("-inf")
        self._in_vain = 0
        self._held_at_bytes = 0

    def is_due(self, now: float, step: Step, used_bytes: int, budget_bytes: int) -> bool:
        """Tell whether to make an attempt now."""
        if step is Step.NORMAL:
            return False
        if self.is_held and used_bytes - self._held_at_bytes >= MORE * budget_bytes:
            self.is_held, self._in_vain = False, 0
        return not self.is_held and now >= self._next_at

    def note(self, now: float, used_bytes: int, freed_bytes: int) -> bool:
        """Take the effect of an attempt; returns whether it is now clear that memory is held and not garbage.

        Args:
            now: When it ended, seconds.
            used_bytes: What was used before.
            freed_bytes: How much less it was after.
        """
        share = freed_bytes / max(1, used_bytes)
        self._next_at = now + (PAUSE_WORTHWHILE if share >= WORTHWHILE else PAUSE)
        self._in_vain = self._in_vain + 1 if share < IN_VAIN else 0
        if self._in_vain < MOST_IN_VAIN or self.is_held:
            return False
        self.is_held, self._held_at_bytes = True, used_bytes - freed_bytes
        return True

    def recovered(self) -> None:
        """Note that the process is back to normal: the next rise is a new story. The pause goes on."""
        self.is_held, self._in_vain = False, 0
