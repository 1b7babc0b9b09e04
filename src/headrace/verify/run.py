"""The course of `headrace verify`: look at settings and server, load, drill, judge, and leave nothing behind."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from headrace.census import Census
from headrace.errors import HeadraceError
from headrace.verify.claims import CollectionWorks, LatencyUnderLoad, MemoryComesBack, PoolUnderLoad, ReliefIsRare
from headrace.verify.claims_drill import NoJobDoubled, NoJobLost, Recovery
from headrace.verify.claims_engine import (
    FastEnough,
    FewErrors,
    FewTimers,
    HistoryIsBounded,
    LoopIsFree,
    NothingIsLeft,
    NoWarnings,
    QuietAtRest,
    ServerKeepsNothing,
)
from headrace.verify.course import FULL
from headrace.verify.crew import Crew
from headrace.verify.doctor import examine, judge_settings
from headrace.verify.drill import Drill
from headrace.verify.evidence import DrillEvidence, LoadEvidence
from headrace.verify.load import Load
from headrace.verify.nodes import delete_keys
from headrace.verify.outcome import Grade, Outcome, Verdict, conclude
from headrace.verify.place import open_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.app import Headrace
    from headrace.settings import Settings
    from headrace.verify.claim import Claim
    from headrace.verify.course import Course
    from headrace.verify.place import Place

LOAD_CLAIMS: Final[tuple[Claim[LoadEvidence], ...]] = (
    PoolUnderLoad(), LatencyUnderLoad(), ReliefIsRare(), CollectionWorks(), MemoryComesBack(), HistoryIsBounded(),
    ServerKeepsNothing(), FewTimers(), QuietAtRest(), FastEnough(), FewErrors(), LoopIsFree(), NoWarnings(),
    NothingIsLeft(),
)  # fmt: skip
DRILL_CLAIMS: Final[tuple[Claim[DrillEvidence], ...]] = (
    NoJobLost(), NoJobDoubled(), *(Recovery(fault) for fault in FULL.faults),
)  # fmt: skip
#: So often the time that a course should take at most it may take before it is ended.
PATIENCE: Final = 2.0
#: Lines of the log of a worker's start that are kept.
START_LINES: Final = 100


@dataclass
class Found:
    """What a run found.

    Attributes:
        outcomes: One for each check.
        course: What was run.
        settings: What was configured, the fleet's settings counted in.
        server: Product and version of the server.
        load: What was measured under load.
        drill: What was measured in the drill.
        start_log: The first lines that the worker under load logged.
        errors: What kept parts from running, and lines of logs at ERROR.
        began: When it began, seconds since 1970.
        seconds: How long it took.
    """

    outcomes: list[Outcome]
    course: Course
    settings: Settings
    server: str = ""
    load: LoadEvidence = field(default_factory=LoadEvidence)
    drill: DrillEvidence = field(default_factory=DrillEvidence)
    start_log: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.time)
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The verdict over all checks."""
        return conclude(self.outcomes)


async def verify(
    course: Course,
    *,
    url: str | None = None,
    app: str = "",
    destructive: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Found:
    """Verify settings, server and engine; afterwards no process, key or file of it is left.

    Args:
        course: How long, and which faults.
        url: Server; without one, the setting REDIS_URL, else one that is started for this run alone.
        app: The user's app as module:attribute, whose middleware and lifespans run around the jobs; empty for none.
        destructive: Whether the user's own server may be restarted.
        tell: Called with a few words about each part.

    Raises:
        SettingError: A setting is malformed.
        ServerStartFailed: The server could not be started.

    Cancelling ends the workers and deletes the keys.
    """
    began, census = time.monotonic(), Census()
    async with open_place(url, census) as place:
        found = Found([], course, place.settings)
        tell("looking at settings and server")
        found.outcomes = await examine(place.url)
        found.server = next((one.measured for one in found.outcomes if one.name == "version"), "")
        if any(one.name == "server" and one.grade is Grade.FAIL for one in found.outcomes):
            found.errors.append("the server cannot be used, so there was no load and no drill")
        else:
            await _Run(place, census, found, app, destructive=destructive, tell=tell).run()
    found.outcomes += [claim.judge(found.load) for claim in LOAD_CLAIMS]
    found.outcomes += [claim.judge(found.drill) for claim in DRILL_CLAIMS]
    found.outcomes += [_interrupted(reason) for reason in found.errors]
    found.seconds = time.monotonic() - began
    return found


class _Run:
    """Load and drill at one place."""

    def __init__(
        self, place: Place, census: Census, found: Found, app: str, *, destructive: bool, tell: Callable[[str], None]
    ) -> None:
        self._place = place
        self._census = census
        self._found = found
        self._app = app
        self._destructive = destructive
        self._tell = tell

    async def run(self) -> None:
        """Run both, for twice as long as they should take at most."""
        patience = PATIENCE * self._found.course.bound
        try:
            async with asyncio.timeout(patience):
                await self.load()
                await self.drill()
        except TimeoutError:
            self._found.errors.append(f"load and drill did not end within {patience:g} s, and were ended")

    async def load(self) -> None:
        """Put a worker under load; what keeps it from running is a finding too."""
        found, place = self._found, self._place
        async with Crew(self._census, place.environment(), place.folder) as crew:
            load = Load(place, crew, found.course, self._app, self._tell)
            found.load = load.found
            app = place.app()
            try:
                async with app:
                    try:
                        await crew.guard(load.run(app))
                    finally:
                        found.load.left_keys = await _clean(crew, app, place.prefix)
            except (HeadraceError, TimeoutError) as error:
                found.errors.append(f"load: {type(error).__name__}: {error}")
            finally:
                found.load.left_here = [str(row) for row in app.census()]
                if load.hand is not None:
                    found.load.log = load.hand.warnings()
                    found.start_log = load.hand.lines()[:START_LINES]
        look = found.load.before
        if look is not None:
            judged = judge_settings(place.settings, (look.minimum, look.maximum))
            found.outcomes = [judged if one.name == judged.name else one for one in found.outcomes]

    async def drill(self) -> None:
        """Strike workers and server; what keeps it from running is a finding too."""
        found, place = self._found, self._place
        if found.errors or not found.course.faults:
            return
        async with Crew(self._census, place.environment(), place.folder) as crew:
            prefix = f"{place.prefix}-drill"
            drill = Drill(place, crew, found.course, self._app, destructive=self._destructive, tell=self._tell)
            found.drill = drill.found
            app = place.app(prefix=prefix)
            try:
                async with app:
                    try:
                        await crew.guard(drill.run(app))
                    finally:
                        found.load.left_keys += await _clean(crew, app, prefix)
            except (HeadraceError, TimeoutError) as error:
                found.errors.append(f"drill: {type(error).__name__}: {error}")
            found.load.left_here += [str(row) for row in app.census()]


async def _clean(crew: Crew, app: Headrace, prefix: str) -> list[str]:
    """End the workers, delete their keys, and return those that are left."""
    # Why in this order: a worker that still runs when the course was interrupted writes its keys again.
    try:
        await crew.end()
    finally:
        left = await delete_keys(app, prefix)
    return left


def _interrupted(reason: str) -> Outcome:
    """Turn what kept a part from running into an outcome."""
    return Outcome(
        name="the run itself",
        grade=Grade.FAIL,
        measured=reason.splitlines()[0][:300],
        threshold="every part runs to its end",
        source="this command",
        evidence=reason[:4_000],
        remedy="Repair what it names, and run it again; `--report DIR` keeps the logs.",
    )
