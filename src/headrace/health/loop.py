"""How late the event loop is: ticks of the process's clock while somebody looks, and no tick otherwise."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from headrace.health.causes import explain_lag
from headrace.health.probe import Machine, grade
from headrace.health.verdict import Finding, LoopLag, Status
from headrace.histogram import RecentHistogram

if TYPE_CHECKING:
    from headrace.clock import Clock

logger = logging.getLogger(__name__)

#: Time between two ticks, seconds.
TICK: Final = 0.01
#: A loop that was blocked for so many times the threshold at once was blocked for sure.
SURE: Final = 4


class LoopWatch:
    """Measure for how long the loop is blocked, and say how it is.

    Args:
        clock: The clock of the process, whose alarm ticks.
        threshold: A loop that is later is blocked, seconds.

    Attributes:
        machine: The status of the loop and its hysteresis.
        blocked: Seconds beyond a tick that the loop was blocked since `start`, all together.
    """

    def __init__(self, clock: Clock, threshold: float) -> None:
        self.machine = Machine()
        self.blocked = 0.0
        self._threshold = threshold
        self._clock = clock
        self._last = 0.0
        self._on = False
        self._longest = self._lag = 0.0
        self._recent = RecentHistogram()
        self._finding: Finding | None = None
        self._alarm = clock.alarm("loop lag", self._tick, owner="health")

    def retune(self, threshold: float) -> None:
        """Take another threshold, in seconds."""
        self._threshold = threshold

    def start(self) -> None:
        """Begin to look."""
        self.blocked = self._longest = 0.0
        self._last = self._clock.now()
        self._on = True
        self._alarm.set(self._last + TICK)

    def read(self) -> float:
        """Return how long the loop was blocked since `start`, until now."""
        if self._on:
            self._note()
        return self.blocked

    def stop(self) -> None:
        """End the ticks; the figures stay."""
        _ = self.read()
        self._on = False
        self._alarm.set(None)

    def judge(self) -> None:
        """Take the longest delay since `start`, or since this was called, as one sign."""
        now, lag = self._clock.now(), self._longest
        self._lag, self._longest = lag, 0.0
        self._recent.turn(now)
        self._recent.current.record(lag)
        sign = grade(lag, self._threshold)
        if sign is Status.DEGRADED:
            self._finding = explain_lag(lag, self._threshold)
        before = self.machine.status
        after = self.machine.feed(sign, sure=lag > SURE * self._threshold)
        if after is not before and self._finding is not None:
            text = "event loop is on time again" if after is Status.HEALTHY else "event loop blocked"
            logger.warning(text, extra={"reason": self._finding.reason})

    def findings(self) -> list[Finding]:
        """Return what is amiss."""
        return [] if self.machine.status is Status.HEALTHY or self._finding is None else [self._finding]

    def figures(self) -> LoopLag:
        """Return the delays."""
        return LoopLag(self._threshold, self._lag, self._recent.quantiles(self._clock.now()))

    def close(self) -> None:
        """Let go of the alarm."""
        self._on = False
        self._alarm.close()

    def _tick(self) -> None:
        if self._on:
            self._note()
            self._alarm.set(self._last + TICK)

    def _note(self) -> None:
        # Why: what a tick is late by is how long the loop did something else. Data that came meanwhile is handled
        # before the tick, so whoever handles it reads here what the loop owes.
        now = self._clock.now()
        late = now - self._last - TICK
        self._last = now
        if late > 0.0:
            self.blocked += late
            self._longest = max(self._longest, late)
