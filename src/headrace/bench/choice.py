"""Choose slots, processes and connections from what was measured. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from headrace.errors import OptionError
from headrace.sizing.demand import Demand, smallest_maximum

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of what gives nearly the most, the least is chosen: at least this share of it.
ENOUGH: Final = 0.90
#: More slots are tried as long as a doubling gains at least this much.
GAIN: Final = 1.10
MOST_SLOTS: Final = 1_024
#: Bounds of a profile.
WAIT_MOST_MS: Final = 10_000
CPU_MOST_MS: Final = 1_000
CALLS_MOST: Final = 100


class Profile(msgspec.Struct, frozen=True):
    """What one job of a kind does.

    Attributes:
        wait_ms: Time that it waits for something outside: another service, a database, a disk.
        cpu_ms: Processor time.
        calls: Redis commands that it makes through the app's pool.
    """

    wait_ms: float = 50.0
    cpu_ms: float = 0.5
    calls: int = 0

    def check(self) -> None:
        """Make sure that it can be measured.

        Raises:
            OptionError: A value lies outside its bounds.
        """
        for name, value, most in (
            ("--wait-ms", self.wait_ms, WAIT_MOST_MS),
            ("--cpu-ms", self.cpu_ms, CPU_MOST_MS),
            ("--calls", self.calls, CALLS_MOST),
        ):
            if not 0 <= value <= most:
                raise OptionError(
                    f"{name} {value:g}: expected 0 to {most}. A longer job needs no measuring: it takes as many slots "
                    "as jobs a second times the seconds of one."
                )


class Point(msgspec.Struct, frozen=True):
    """One point of the curve.

    Attributes:
        processes: Worker processes.
        slots: Slots of each.
        connections: Most connections of the pool of each.
        rate: Jobs a second, all together.
        cpu_percent: Processor time of all of them, percent of a core.
        borrowed: Most connections that the jobs of one of them wanted at once.
        wait_ms: 99 % of the waits for a connection were at most this long.
    """

    processes: int
    slots: int
    connections: int
    rate: float
    cpu_percent: float
    borrowed: int
    wait_ms: float


class Recommendation(msgspec.Struct, frozen=True):
    """What follows from the curve: the point, the pool that it needs, and why."""

    processes: int
    slots: int
    connections: int
    rate: float
    reason: str


def is_worth_more(points: Sequence[Point], goal: float | None = None) -> bool:
    """Tell whether twice as many slots should be tried.

    Args:
        points: The curve so far, of one process.
        goal: Jobs a second that are wanted.

    Example:
        >>> point = Point(1, 8, 100, 100.0, 10.0, 0, 0.0)
        >>> is_worth_more([point]), is_worth_more([point, point])
        (True, False)
    """
    last = points[-1]
    if last.slots * 2 > MOST_SLOTS or (goal is not None and last.rate >= goal):
        return False
    return len(points) == 1 or last.rate >= points[-2].rate * GAIN


def choose(points: Sequence[Point], goal: float | None = None) -> Point:
    """Return the smallest point that is enough: reaches the goal, or nearly the most that was measured.

    Args:
        points: The curve.
        goal: Jobs a second that are wanted.

    Example:
        >>> curve = [Point(1, slots, 100, rate, 0.0, 0, 0.0) for slots, rate in ((1, 10.0), (8, 78.0), (64, 80.0))]
        >>> choose(curve).slots, choose(curve, goal=9.0).slots, choose(curve, goal=500.0).slots
        (8, 1, 8)
    """
    most = max(point.rate for point in points)
    wanted = ENOUGH * most if goal is None or most < goal else goal
    return min(
        (point for point in points if point.rate >= wanted),
        key=lambda point: (point.processes, point.slots, -point.rate),
    )


def pool_of(point: Point) -> int:
    """Return REDIS_MAX_CONNECTIONS of each process at a point: what the app needs, and what its jobs borrow.

    Example:
        >>> pool_of(Point(1, 64, 100, 1.0, 0.0, 0, 0.0)), pool_of(Point(1, 64, 100, 1.0, 0.0, 40, 0.0))
        (4, 70)
    """
    return smallest_maximum(Demand(workers=1, slots=point.slots, borrowed=point.borrowed))


def recommend(points: Sequence[Point], profile: Profile, cores: int, goal: float | None) -> Recommendation:
    """Return what fits this machine, and why.

    Args:
        points: The whole curve, of one and of several processes.
        profile: What a job does.
        cores: Cores that may be used.
        goal: Jobs a second that are wanted.
    """
    best = choose(points, goal)
    most = max(point.rate for point in points)
    if goal is None:
        reason = f"{best.rate:,.0f} jobs/s of {most:,.0f} at most; more slots or processes gain little"
    elif most < goal:
        reason = f"{goal:,.0f} jobs/s are not reached here, {most:,.0f} at most; run it on more machines"
    else:
        reason = f"it is the least that reaches {goal:,.0f} jobs/s"
    busy = best.cpu_percent / best.processes
    reason += f". Each process was busy for {busy:.0f} % of its time, on a machine of {cores} cores"
    if profile.calls:
        reason += f"; its jobs wanted {best.borrowed} connections at once"
    return Recommendation(best.processes, best.slots, pool_of(best), best.rate, f"{reason}.")
