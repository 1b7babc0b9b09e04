"""The drill: workers and server are struck while jobs run, and every job is accounted for afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from headrace.errors import ConnectionLost, HeadraceError
from headrace.verify.evidence import DrillEvidence
from headrace.verify.faults import Faults
from headrace.verify.journal import Journal
from headrace.verify.load import drain
from headrace.verify.tasks import QUEUE, Tasks, VerifyPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.app import Headrace
    from headrace.verify.course import Course
    from headrace.verify.crew import Crew, Hand
    from headrace.verify.evidence import Strike
    from headrace.verify.place import Place

#: What one job of the drill takes, seconds.
JOB_SECONDS: Final = 0.04
#: Jobs that wait at most, so that a fault finds the workers busy and nothing waits long.
BACKLOG: Final = 60
BATCH: Final = 20
PAUSE: Final = 0.02
#: Jobs that must have ended before the first fault, and within how long, seconds.
WARM_JOBS: Final = 40
WARM_TIMEOUT: Final = 15.0
#: Most jobs of a drill.
MOST_JOBS: Final = 50_000


class Drill:
    """Strike and account.

    Args:
        place: Where.
        crew: Starts the workers.
        course: Which faults.
        app: The user's app as module:attribute, or empty.
        destructive: Whether the user's own server may be restarted.
        tell: Called with a few words about each part.
    """

    def __init__(
        self, place: Place, crew: Crew, course: Course, app: str, *, destructive: bool, tell: Callable[[str], None]
    ) -> None:
        self.found = DrillEvidence(lease=course.lease)
        self.hands: list[Hand] = []
        self._place = place
        self._crew = crew
        self._course = course
        self._user_app = app
        self._destructive = destructive
        self._tell = tell
        #: Id of each accepted job, and when its enqueue had returned, seconds since 1970.
        self._accepted: deque[tuple[str, float]] = deque(maxlen=MOST_JOBS)

    async def run(self, app: Headrace) -> DrillEvidence:
        """Do everything; `app` is one of this process, open, on the prefix of the drill.

        Raises:
            HeadraceError: A worker could not start, or jobs were left.
        """
        found, began = self.found, time.monotonic()
        async with Journal(app.census_book) as journal:
            count = 3 if len(self._course.faults) > 1 else 2
            self._tell(f"starting {count} workers for the drill, with a lease of {found.lease:g} s")
            self.hands = [await self._start(app, journal) for _ in range(count)]
            await asyncio.gather(*(hand.ready() for hand in self.hands))
            enough = asyncio.Event()
            producing = app.census_book.create_task(
                self._produce(app, Tasks(app), enough), name="enqueue", owner="verify", expected=(HeadraceError,)
            )
            try:
                if not await journal.until(lambda: journal.ended() >= WARM_JOBS, WARM_TIMEOUT):
                    raise HeadraceError("the workers of the drill ran no jobs. See the log of the workers.")
                faults = Faults(app, self._place, journal, found.lease)
                await self._strike_all(faults)
            finally:
                enough.set()
                await asyncio.gather(producing, return_exceptions=True)
            producing.result()
            await drain(app.queue(QUEUE), found.lease + 20.0)
            last = self._accepted
            await journal.until(lambda: all(_has_ended(journal, job) for job, _ in last), 2.0)
            await self._account(app, journal, faults)
            for hand in self.hands:
                if hand.alive:
                    found.refused += (await hand.stop()).worker["refused"]
        found.seconds = time.monotonic() - began
        return found

    async def _start(self, app: Headrace, journal: Journal) -> Hand:
        settings = app.settings
        overrides = {"lease": self._course.lease, "queue_concurrency": self._course.drill_slots, "queue_limits": ()}
        plan = VerifyPlan(
            url=self._place.url,
            prefix=settings.prefix,
            app=self._user_app,
            overrides=overrides,
            journal=journal.writing,
        )
        return await self._crew.start(plan)

    async def _produce(self, app: Headrace, tasks: Tasks, enough: asyncio.Event) -> None:
        """Keep the workers busy; each job whose enqueue returned counts as accepted."""
        number = 0
        while not enough.is_set() and number < MOST_JOBS:
            try:
                if (await app.queue(QUEUE).stats()).waiting < BACKLOG:
                    jobs = await tasks.mark.enqueue_many([((number + at, JOB_SECONDS),) for at in range(BATCH)])
                    self._accepted += ((job.id, time.time()) for job in jobs)
                    number += BATCH
            except ConnectionLost:
                # Jobs whose enqueue raised are nobody's promise.
                continue
            await asyncio.sleep(PAUSE)

    async def _strike_all(self, faults: Faults) -> None:
        for fault in self._course.faults:
            self._tell(f"fault: {fault}")
            self.found.strikes.append(await self._strike(faults, fault))

    async def _strike(self, faults: Faults, fault: str) -> Strike:
        if fault == "kill":
            return await faults.kill(self.hands[0])
        if fault == "pause":
            return await faults.pause(self.hands[1])
        alive = [hand for hand in self.hands if hand.alive]
        if fault == "cut":
            return await faults.cut(alive)
        strike = faults.restart if fault == "restart" else faults.crash
        return await strike(alive, destructive=self._destructive)

    async def _account(self, app: Headrace, journal: Journal, faults: Faults) -> None:
        found, accepted = self.found, list(self._accepted)
        stats = await app.queue(QUEUE).stats()
        found.accepted, found.completed, found.dead = len(accepted), stats.completed, stats.failed
        lost = [at for job, at in accepted if not _has_ended(journal, job)]
        found.lost, found.persistence = len(lost), faults.persistence
        found.allowed = sum(1 for at in lost if any(start <= at <= end for start, end in faults.volatile))
        for job, runs in journal.runs.items():
            if len(runs.starts) < 2:  # noqa: PLR2004 - more than once
                continue
            found.twice += 1
            first, again = runs.starts[0], runs.starts[1]
            away = any(first.at <= end and again.at >= start for start, end in faults.away)
            found.unexplained += not (job in faults.held or away)


def _has_ended(journal: Journal, job: str) -> bool:
    runs = journal.runs.get(job)
    return runs is not None and runs.end is not None
