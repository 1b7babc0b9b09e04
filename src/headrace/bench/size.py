"""Measure the curve of a kind of job: jobs a second over slots, then over processes, then with the recommended pool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.bench.choice import Point, Profile, Recommendation, choose, is_worth_more, recommend
from headrace.bench.facts import collect_facts, count_cores
from headrace.bench.hired import hire
from headrace.bench.measure import send
from headrace.bench.place import open_place
from headrace.bench.work import Order, compute
from headrace.bench.workloads import TEXT, Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.bench.place import Place

#: Seconds that one point should take, at the rate that is expected of it.
POINT_SECONDS: Final = 1.0
FEWEST_JOBS: Final = 40
MOST_JOBS: Final = 20_000
#: Connections of a pool while the curve is taken: enough for every slot.
WIDE: Final = 1_200


class SizeReport(msgspec.Struct, frozen=True):
    """The curve and what follows from it; `confirmed` was measured with the recommended pool."""

    schema: str
    facts: dict[str, str]
    profile: Profile
    points: tuple[Point, ...]
    recommended: Recommendation
    confirmed: Point


async def measure_size(
    profile: Profile,
    goal: float | None,
    tell: Callable[[str], None],
    seconds: float = POINT_SECONDS,
    url: str | None = None,
) -> SizeReport:
    """Take the curve.

    Args:
        profile: What a job does.
        goal: Jobs a second that are wanted; None for the most.
        tell: Called with a line for each point.
        seconds: How long one point should take.
        url: The user's server, as `open_place` takes it; None for a private one.

    Raises:
        OptionError: The profile cannot be measured, or the user's server cannot take the jobs.
        ServerError: The user's server cannot be reached.
        ServerStartFailed: The server could not be started.
        HeadraceError: A worker failed.

    Cancelling leaves no process behind.
    """
    profile.check()
    load_before = os.getloadavg()[0]
    async with open_place(url, extra=("--maxclients", "10000")) as place:
        if not place.private:
            tell(f"on {place.server}; all keys begin with '{place.prefix}:' and are deleted")
        sizer = _Curve(profile, place, tell, seconds)
        points = [await sizer.take(1, 1, WIDE)]
        while is_worth_more(points, goal):
            points.append(await sizer.take(1, points[-1].slots * 2, WIDE))
        slots = choose(points, goal).slots
        cores = count_cores()
        for processes in range(2, cores + 1):
            if goal is not None and points[-1].rate >= goal:
                break
            points.append(await sizer.take(processes, slots, WIDE))
        found = recommend(points, profile, cores, goal)
        tell("recommended")
        confirmed = await sizer.take(found.processes, found.slots, found.connections)
        facts = collect_facts(place.server, load_before)
    return SizeReport("headrace-bench-size-1", facts, profile, tuple(points), found, confirmed)


class _Curve:
    def __init__(self, profile: Profile, place: Place, tell: Callable[[str], None], seconds: float) -> None:
        self._profile = profile
        self._place = place
        self._tell = tell
        self._seconds = seconds
        self._rounds = round(profile.cpu_ms / 1000 * rounds_a_second())
        #: Jobs a second and slot of the last point.
        self._each = 1000 / max(profile.wait_ms + profile.cpu_ms + profile.calls * 0.3, 0.05)

    async def take(self, processes: int, slots: int, connections: int) -> Point:
        """Measure one point: each process has a queue of its own, and gets its jobs when all are ready."""
        expected = self._each * slots * self._seconds
        count = round(min(MOST_JOBS, max(FEWEST_JOBS, 2 * slots, expected)))
        self._tell(f"{processes} x {slots} slots, {processes * count:,} jobs")
        await self._place.clear()
        async with contextlib.AsyncExitStack() as stack:
            app = await stack.enter_async_context(self._place.app())
            workers = []
            for index in range(processes):
                order = Order([f"bench-{index}"], slots, count, self._profile.calls, self._rounds, connections)
                workers.append(await stack.enter_async_context(hire(self._place, order, index)))
            began = time.perf_counter()
            for index in range(processes):
                call = Call("sleep", self._profile.wait_ms / 1000, TEXT, f"bench-{index}")
                await send(app, [call] * count)
            found: list[dict[str, Any]] = await asyncio.gather(*(worker.result() for worker in workers))
            took = time.perf_counter() - began
        rate = sum(one["jobs"] / one["seconds"] for one in found) if processes == 1 else processes * count / took
        self._each = min(self._each, rate / processes / slots)
        return Point(
            processes=processes,
            slots=slots,
            connections=connections,
            rate=rate,
            cpu_percent=sum(100 * one["processor_seconds"] / max(one["seconds"], 1e-6) for one in found),
            borrowed=max(one["borrowed"] for one in found),
            wait_ms=max(one["pool_wait_p99"] for one in found) * 1000,
        )


def rounds_a_second() -> float:
    """Return how many rounds of hashing one core does in a second, as measured in some milliseconds."""
    rounds = 20_000
    began = time.perf_counter()
    compute(rounds)
    return rounds / (time.perf_counter() - began)
