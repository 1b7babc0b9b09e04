"""Try settings: store them, watch how the fleet does, and take them back when a figure got worse, with the evidence.

The figures before the change are the measure. A figure counts as worse when it is beyond its limit in three windows one
after another, so that one slow second takes nothing back.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from headrace.errors import HeadraceError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from headrace.census import Census
    from headrace.fleet.desk import Fleet
    from headrace.pool.carrier import Carrier
    from headrace.settings_fleet import Version
    from headrace.store.store import Store

    class Place(Protocol):
        """What a trial needs of an open app."""

        @property
        def store(self) -> Store:
            """Sends the calls."""

        @property
        def control(self) -> Carrier:
            """Carries them."""

        @property
        def census_book(self) -> Census:
            """Where tasks are entered."""

        @property
        def fleet(self) -> Fleet:
            """The settings of the fleet."""


#: Windows one after another in which a figure must be beyond its limit.
IN_A_ROW: Final = 3
#: Part of a window that is spent waiting for the answers of the processes, and the longest such wait, seconds.
ASK_SHARE: Final = 0.5
ASK_LONGEST: Final = 0.5
#: Fewer attempts in a window say nothing about their failures.
FEWEST_ATTEMPTS: Final = 5
FIGURES: Final = ("throughput", "errors", "latency", "pool", "workers")
"""What can be watched: jobs completed a second while jobs wait; share of attempts that failed; age of the oldest
waiting job in ms; calls that wait for a connection of a pool; workers that answer."""


@dataclass(frozen=True, slots=True)
class Window:
    """How the fleet did between two looks.

    Attributes:
        seconds: Length.
        throughput: Jobs completed a second.
        attempts: Attempts that ended.
        errors: Share of them that failed, 0..1.
        waiting: Jobs that wait at its end.
        latency: Age of the oldest of them, ms.
        pool: Calls that wait for a connection of a pool, of all processes.
        workers: Workers that answer.
    """

    seconds: float
    throughput: float
    attempts: int
    errors: float
    waiting: int
    latency: float
    pool: int
    workers: int


@dataclass(frozen=True, slots=True)
class Worse:
    """One figure that got worse.

    Attributes:
        figure: One of `FIGURES`.
        before: What it was before the change.
        limit: What it may be.
        after: What it was in the windows that decided.
    """

    figure: str
    before: float
    limit: float
    after: tuple[float, ...]

    def __str__(self) -> str:
        """Write it as a sentence."""
        beyond = "at least" if self.figure in {"throughput", "workers"} else "at most"
        after = ", ".join(f"{value:.4g}" for value in self.after)
        return f"{self.figure} was {self.before:.4g}, expected {beyond} {self.limit:.4g}, is {after}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended.

    Attributes:
        version: What was stored.
        before: The windows before the change.
        after: Those after it.
        worse: What got worse; empty when the settings stay.
        restored: The version that took them back, None when they stay.
    """

    version: Version
    before: list[Window]
    after: list[Window]
    worse: list[Worse] = field(default_factory=list)
    restored: Version | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    completed: int
    failed: int
    waiting: int
    oldest_ms: int
    pool: int
    workers: int


def find_limits(before: Sequence[Window]) -> dict[str, tuple[float, float]]:
    """Return of each figure what it was and what it may be; a figure that says nothing yet is left out.

    Example:
        >>> calm = Window(1.0, 100.0, 100, 0.0, 5, 20.0, 0, 2)
        >>> limits = find_limits([calm, calm])
        >>> limits["throughput"], limits["latency"], limits["pool"], limits["workers"]
        ((100.0, 70.0), (20.0, 1040.0), (0, 5), (2, 2))
    """
    limits: dict[str, tuple[float, float]] = {}
    pace = median(window.throughput for window in before)
    if pace > 0:
        limits["throughput"] = (pace, 0.7 * pace)
    attempts = sum(window.attempts for window in before)
    share = sum(window.errors * window.attempts for window in before) / attempts if attempts else 0.0
    limits["errors"] = (share, share + 0.05)
    latency = max(window.latency for window in before)
    limits["latency"] = (latency, 2 * latency + 1_000.0)
    pool = max(window.pool for window in before)
    limits["pool"] = (pool, 2 * pool + 5)
    workers = min(window.workers for window in before)
    if workers:
        limits["workers"] = (workers, workers)
    return limits


def judge(before: Sequence[Window], after: Sequence[Window], watched: Sequence[str] = FIGURES) -> list[Worse]:
    """Say what has got worse by the last windows.

    Args:
        before: Windows before the change, at least one.
        after: Windows after it.
        watched: Figures that count.

    Example:
        >>> calm = Window(1.0, 100.0, 100, 0.0, 5, 20.0, 0, 2)
        >>> starved = Window(1.0, 10.0, 10, 0.0, 90, 900.0, 0, 2)
        >>> [str(each) for each in judge([calm], [calm, starved, starved, starved])]
        ['throughput was 100, expected at least 70, is 10, 10, 10']
    """
    last = after[-IN_A_ROW:]
    if len(last) < IN_A_ROW:
        return []
    limits = find_limits(before)
    return [
        Worse(figure, *limits[figure], tuple(float(getattr(window, figure)) for window in last))
        for figure in FIGURES
        if figure in watched
        and figure in limits
        and all(_is_beyond(window, figure, limits[figure][1]) for window in last)
    ]


def _is_beyond(window: Window, figure: str, limit: float) -> bool:
    value: float = getattr(window, figure)
    if figure == "throughput":
        # Why: fewer jobs are done when there are fewer to do.
        return value < limit and window.waiting > 0
    if figure == "errors":
        return value > limit and window.attempts >= FEWEST_ATTEMPTS
    return value < limit if figure == "workers" else value > limit


class Trial:
    """Try settings on a fleet that works.

    Args:
        place: The open app.
        watched: Figures that count, of `FIGURES`.
        before: Seconds for which the fleet is watched before the change, 0.1..3600.
        after: Seconds for which it is watched after it, 0.1..86400.
        every: Length of a window in seconds, 0.1..60.
        told: Called with each window: whether it is after the change, and the window.

    Raises:
        OptionError: A figure is unknown, or a time is out of its bounds.

    Attributes:
        stored: The version that is tried, once it is stored.
        restored: The version that took it back, if it was.
    """

    def __init__(
        self,
        place: Place,
        *,
        watched: Sequence[str] = FIGURES,
        before: float = 10.0,
        after: float = 60.0,
        every: float = 1.0,
        told: Callable[[bool, Window], None] = lambda _after, _window: None,
    ) -> None:
        unknown = [figure for figure in watched if figure not in FIGURES]
        if unknown or not watched:
            raise OptionError(f"watched={','.join(watched)}: expected some of {', '.join(FIGURES)}.")
        for name, value, high in (("before", before, 3_600), ("after", after, 86_400), ("every", every, 60)):
            if not 0.1 <= value <= high:  # noqa: PLR2004 - as it says
                raise OptionError(f"{name}={value!r}: expected seconds from 0.1 to {high}.")
        self.stored: Version | None = None
        self.restored: Version | None = None
        self._place = place
        self._watched = tuple(watched)
        self._before = before
        self._after = after
        self._every = every
        self._told = told

    async def run(
        self, values: Mapping[str, str], *, base: Version, author: str | None = None, note: str = "", source: str
    ) -> Outcome:
        """Watch, store the settings, watch on, and take them back if a figure gets worse.

        Args:
            values: Variable to text; the fleet stores these and no others.
            base: The latest version, as it was read; what is gone back to.
            author: As for `Fleet.store`.
            note: As for `Fleet.store`.
            source: Where a wrong value can be corrected, for errors.

        Raises:
            SettingError: A setting is wrong; nothing was stored.
            SettingsConflict: Somebody else stored a version meanwhile; then theirs stays.

        Cancelling the call takes the settings back, too.
        """
        fleet = self._place.fleet
        look = await self._look()
        before = []
        for _ in range(max(1, round(self._before / self._every))):
            look, window = await self._next(look)
            before.append(window)
            self._told(False, window)  # noqa: FBT003 - before or after, as the callback says
        storing = self._place.census_book.create_task(
            fleet.store(values, base=base, author=author, note=note, place=source),
            name="store settings on trial", owner="trial", expected=(HeadraceError,),
        )  # fmt: skip
        after: list[Window] = []
        try:
            self.stored = version = await asyncio.shield(storing)
            for _ in range(max(IN_A_ROW, round(self._after / self._every))):
                look, window = await self._next(look)
                after.append(window)
                self._told(True, window)  # noqa: FBT003 - as above
                if worse := judge(before, after, self._watched):
                    break
            else:
                return Outcome(version, before, after)
        except BaseException:
            # Why: settings that nobody watches any more were not proved to be good. They may be on their way yet.
            self.stored = await storing
            await self._take_back(base, self.stored, author, "the watch was ended")
            raise
        return Outcome(version, before, after, worse, await self._take_back(base, version, author, str(worse[0])))

    async def _take_back(self, base: Version, version: Version, author: str | None, reason: str) -> Version:
        note = f"version {version.number} was taken back: {reason}"[:500]
        restoring = self._place.fleet.roll_back(base.number, base=version, author=author, note=note)
        self.restored = await asyncio.shield(restoring)
        return self.restored

    async def _next(self, last: _Look) -> tuple[_Look, Window]:
        """Wait for the end of the window that began with a look."""
        ask = min(ASK_LONGEST, self._every * ASK_SHARE)
        await asyncio.sleep(max(0.0, last.at + self._every - time.monotonic() - ask))
        look = await self._look(ask)
        seconds = max(1e-9, look.at - last.at)
        # Why: a queue that was deleted meanwhile takes its totals along.
        completed, failed = max(0, look.completed - last.completed), max(0, look.failed - last.failed)
        attempts = completed + failed
        share = failed / attempts if attempts else 0.0
        return look, Window(
            seconds, completed / seconds, attempts, share, look.waiting, look.oldest_ms, look.pool, look.workers
        )

    async def _look(self, ask: float = 0.05) -> _Look:
        place = self._place
        figures = await place.fleet.ask(wait=ask)
        names = await place.store.queue_names(place.control)
        counts = await asyncio.gather(*(place.store.stats(place.control, name) for name in names))
        return _Look(
            at=time.monotonic(),
            completed=sum(each.totals.get("completed", 0) for each in counts),
            failed=sum(each.totals.get("failed", 0) + each.totals.get("retried", 0) for each in counts),
            waiting=sum(each.waiting for each in counts),
            oldest_ms=max((each.oldest_ms for each in counts), default=0),
            pool=sum(each.pool_waiting for each in figures),
            workers=sum(each.workers for each in figures),
        )
