"""The load: one worker process of the user's settings works at full speed, calls from all slots, rests."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.errors import ResultTimeout
from headrace.histogram import Histogram
from headrace.memory.probes import read_usage
from headrace.resp import pack_command
from headrace.verify.evidence import Collected, LoadEvidence, Look
from headrace.verify.nodes import read_stored
from headrace.verify.tasks import QUEUE, Tasks, VerifyPlan

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from headrace.app import Headrace
    from headrace.queue import Queue
    from headrace.verify.course import Course
    from headrace.verify.crew import Crew, Hand
    from headrace.verify.place import Place

PING: Final = pack_command("PING")
#: Between two PINGs beside the load, seconds.
PING_PAUSE: Final = 0.01
#: How long round trips are counted, seconds.
FLOOR_SECONDS: Final = 0.4
#: Jobs without content that wait at most, and that are enqueued at once.
BACKLOG: Final = 2_000
BATCH: Final = 1_000
#: Between two looks at the queue, seconds.
LOOK: Final = 0.05
#: Parts of the time of jobs without content, and most parts that are kept.
PARTS: Final = 4
MOST_PARTS: Final = 256
#: Mean pause of a calling job before each of its calls, seconds.
PAUSE: Final = 0.25
#: Longest wait for the last jobs of a part, seconds.
DRAIN: Final = 20.0
#: The pool opens its connections in this time after the calls begin, which says nothing of how it carries them.
RAMP: Final = 0.5
#: Longest warm-up, seconds.
WARM: Final = 5.0
#: Garbage made for the collection, MB.
LITTER: Final = 32
#: Most points of the memory series; when it is full every second one goes.
SERIES: Final = 600


class Load:
    """Put one worker under load and measure.

    Args:
        place: Where.
        crew: Starts the worker.
        course: How long.
        app: The user's app as module:attribute, or empty.
        tell: Called with a few words about each part.
    """

    def __init__(self, place: Place, crew: Crew, course: Course, app: str, tell: Callable[[str], None]) -> None:
        self.found = LoadEvidence(slots=place.settings.queue_concurrency, loop_lag_warn=place.settings.loop_lag_warn)
        self.hand: Hand | None = None
        self._place = place
        self._crew = crew
        self._course = course
        self._user_app = app
        self._tell = tell
        self._pings = Histogram()
        self._part = Histogram()
        self._numbers = 0

    async def run(self, app: Headrace) -> LoadEvidence:
        """Do everything; `app` is one of this process, open.

        Raises:
            HeadraceError: The worker could not start, ended by itself or did not answer.
            ResultTimeout: Jobs were left.
            ConnectionLost: The server could not be reached.
        """
        found, course = self.found, self._course
        tasks = Tasks(app)
        self._tell("starting a worker with your settings")
        found.began = time.time()
        place = self._place
        hand = self.hand = await self._crew.start(VerifyPlan(url=place.url, prefix=place.prefix, app=self._user_app))
        await hand.ready()
        found.roundtrips = await self._count_roundtrips(app)
        await self._warm_up(app, tasks)
        await hand.ask("settle", dict)
        found.before = before = await hand.ask("look", Look)
        found.stored = [await read_stored(app, place.prefix)]
        async with self._watching(app, hand):
            for number in range(course.rounds):
                part = f" ({number + 1} of {course.rounds})" if course.rounds > 1 else ""
                self._tell(f"jobs without content, as fast as they go{part}")
                await self._work(app, tasks, hand)
                self._tell(f"calls of the server from all {found.slots} slots{part}")
                await self._call(app, tasks, hand)
        await hand.ask("settle", dict)
        found.after = after = await hand.ask("look", Look)
        found.stored.append(await read_stored(app, place.prefix))
        found.failed = sum(after.worker[name] - before.worker[name] for name in ("failed", "retried"))
        self._tell("nothing to do")
        found.idle = [await hand.ask("look", Look)]
        await asyncio.sleep(course.rest)
        found.idle.append(await hand.ask("look", Look))
        self._tell("a collection")
        found.collected = await hand.ask(f"collect {LITTER}", Collected)
        found.ended = await hand.stop()
        return found

    async def _count_roundtrips(self, app: Headrace) -> float:
        count, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < FLOOR_SECONDS:
            await app.user.roundtrip(PING, 1)
            count += 1
        return count / spent

    async def _warm_up(self, app: Headrace, tasks: Tasks) -> None:
        """Fill what is bounded, so that only what grows without bound grows afterwards."""
        await tasks.nothing.enqueue_many([((number,),) for number in range(self._course.warm)])
        await tasks.call.enqueue_many([((number, 0.02),) for number in range(2 * self.found.slots)])
        queue = app.queue(QUEUE)
        with suppress(ResultTimeout):
            await drain(queue, WARM)
        await self._empty(queue)

    async def _empty(self, queue: Queue) -> None:
        """Wait for what runs and drop what waits: with few slots or a slow server that would take far too long."""
        await queue.clear("waiting")
        await drain(queue)

    async def _work(self, app: Headrace, tasks: Tasks, hand: Hand) -> None:
        queue, began = app.queue(QUEUE), time.monotonic()
        before = (await queue.stats()).completed
        marks = [(began, before)]
        await hand.ask("sample", dict)
        while (now := time.monotonic()) - began < self._course.work:
            stats = await queue.stats()
            if now - marks[-1][0] >= self._course.work / PARTS:
                self._note_part(marks, now, stats.completed)
            if stats.waiting < BACKLOG:
                await tasks.nothing.enqueue_many([((number,),) for number in self._next(BATCH)])
            else:
                await asyncio.sleep(LOOK / 5)
        await self._empty(queue)
        self.found.jobs_seconds += time.monotonic() - began
        self.found.jobs += (await queue.stats()).completed - before
        self._note_lag(await hand.ask("look", Look))

    async def _call(self, app: Headrace, tasks: Tasks, hand: Hand) -> None:
        found, queue, began = self.found, app.queue(QUEUE), time.monotonic()
        before = (await queue.stats()).completed
        sampling = False
        while time.monotonic() - began < self._course.calls:
            if not sampling and time.monotonic() - began >= RAMP:
                sampling = bool(await hand.ask("sample", dict))
            if (await queue.stats()).waiting < found.slots:
                await tasks.call.enqueue_many([((number, PAUSE),) for number in self._next(2 * found.slots)])
            await asyncio.sleep(LOOK)
        look = await hand.ask("look", Look)
        self._note_lag(look)
        await self._empty(queue)
        found.callers += (await queue.stats()).completed - before
        if found.under is not None:
            samples = [*found.under.samples, *look.samples]
            look = msgspec.structs.replace(look, samples=samples[:: 1 + len(samples) // (20 * SERIES)])
        found.under = look

    def _note_part(self, marks: list[tuple[float, int]], now: float, completed: int) -> None:
        """Keep the figures of one part of the load, since how they differ is how much they vary."""
        then, before = marks[-1]
        marks.append((now, completed))
        self.found.rates = [*self.found.rates, (completed - before) / (now - then)][-MOST_PARTS:]
        part, self._part = self._part, Histogram()
        self.found.latencies = [*self.found.latencies, part.quantiles()][-MOST_PARTS:]

    def _note_lag(self, look: Look) -> None:
        self.found.lags = [*self.found.lags, look.lag][-MOST_PARTS:]

    def _next(self, count: int) -> range:
        self._numbers += count
        return range(self._numbers - count, self._numbers)

    @asynccontextmanager
    async def _watching(self, app: Headrace, hand: Hand) -> AsyncGenerator[None, None]:
        """Measure round trips and the memory of the worker meanwhile."""
        began, series = time.monotonic(), self.found.series
        task = app.census_book.create_task(self._ping(app), name="ping", owner="verify")

        def look() -> None:
            series.append((round(time.monotonic() - began, 1), read_usage(hand.pid).resident))
            if len(series) > SERIES:
                del series[1::2]

        duty = app.clock.every("look at the worker", 0.5, look, owner="verify")
        look()
        try:
            yield
            look()
        finally:
            self.found.latency = self._pings.quantiles()
            duty.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _ping(self, app: Headrace) -> None:
        while True:
            sent = time.perf_counter()
            await app.control.roundtrip(PING, 1)
            seconds = time.perf_counter() - sent
            self._pings.record(seconds)
            self._part.record(seconds)
            await asyncio.sleep(PING_PAUSE)


async def drain(queue: Queue, timeout: float = DRAIN) -> None:
    """Wait until a queue is empty, looking more often than `Queue.drain` does.

    Raises:
        ResultTimeout: Jobs were left.
    """
    deadline = time.monotonic() + timeout
    while (stats := await queue.stats()).waiting + stats.delayed + stats.active:
        if time.monotonic() > deadline:
            left = f"{stats.waiting} waiting, {stats.delayed} delayed, {stats.active} active"
            raise ResultTimeout(f"the jobs of the load did not end within {timeout:g} s: {left}. See the log.")
        await asyncio.sleep(LOOK / 2)
