"""How long each part of a verification takes: quick, full, or a soak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Course:
    """Durations in seconds.

    Attributes:
        name: `quick`, `full` or `soak`.
        bound: The whole must take less.
        warm: Jobs of each warm-up batch.
        work: Jobs without content, as fast as they go.
        calls: Jobs that call the server through the pool, in all slots.
        rest: Nothing to do.
        rounds: How often work and calls are repeated.
        lease: Lease of the workers of the drill.
        faults: What happens to them.
        drill_slots: Slots of each of them.
    """

    name: str
    bound: float
    warm: int
    work: float
    calls: float
    rest: float
    rounds: int
    lease: float
    faults: tuple[str, ...]
    drill_slots: int = 8


QUICK: Final = Course("quick", 15.0, 300, 1.0, 1.5, 1.0, 1, 1.0, ("kill",))
FULL: Final = Course("full", 60.0, 1_000, 5.0, 8.0, 5.0, 1, 2.0, ("kill", "pause", "cut", "restart", "crash"))
#: What a soak takes beside its rounds, seconds.
AROUND: Final = 40.0


def soak(seconds: float) -> Course:
    """Return a course that repeats work and calls for so long in all.

    Example:
        >>> soak(600.0).rounds
        18
    """
    work, calls = 10.0, 20.0
    rounds = max(1, int((seconds - AROUND) // (work + calls)))
    return Course("soak", seconds + AROUND, 1_000, work, calls, 10.0, rounds, 2.0, FULL.faults)
