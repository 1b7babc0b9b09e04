"""Take the figures: each in a worker process of its own, on a private server, with a warm-up and several repeats."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psutil
import redis.asyncio

from headrace.bench.facts import collect_facts
from headrace.bench.hired import hire
from headrace.bench.place import open_place
from headrace.bench.report import SCHEMA, BenchReport, Figure, Inputs
from headrace.bench.work import TASK, Order
from headrace.bench.workloads import BURST_INTERVAL, BURST_JOBS, TEXT, WORKLOADS, digest_of, plan_jobs
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from headrace import Headrace
    from headrace.bench.place import Place
    from headrace.bench.report import Better
    from headrace.bench.workloads import Call

    #: Name, unit, whether more of it is better, and one value of a figure.
    Taken: TypeAlias = tuple[str, str, Better, float]

#: What is measured beside the workloads, in the order in which it is.
MEASURES: Final = ("enqueue", "latency", "idle")
SLOTS: Final = 100
#: At full scale: jobs enqueued one by one, jobs whose delay is measured, seconds of the idle measure.
SINGLE_JOBS: Final = 2_000
LATENCY_JOBS: Final = 300
IDLE_SECONDS: Final = 10.0
#: Pause between two jobs of the measure of latency, so that the worker is idle again; seconds.
LATENCY_PAUSE: Final = 0.004
#: Longest time of one measure, seconds.
PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        names: Workloads and measures.
        repeats: How often, beside a warm-up.
        scale: Part of the jobs of the full size.
        seed: Seed of everything that is drawn.
    """

    names: tuple[str, ...]
    repeats: int
    scale: float
    seed: int

    def count(self, full: int) -> int:
        """Return how many of so many jobs; at least 20."""
        return max(20, round(full * self.scale))


async def run_bench(plan: Plan, tell: Callable[[str], None], url: str | None = None) -> BenchReport:
    """Take all figures of a plan.

    Args:
        plan: What to measure.
        tell: Called with a line for each measure.
        url: The user's server, as `open_place` takes it; None for a private one.

    Raises:
        OptionError: The user's server cannot take the jobs.
        ServerError: It cannot be reached.
        ServerStartFailed: The server could not be started.
        HeadraceError: A worker failed, or a measure took too long.

    Cancelling leaves no process behind.
    """
    load_before = os.getloadavg()[0]
    async with open_place(url, scale=plan.scale) as place:
        bench = Bench(plan, place)
        if not place.private:
            tell(f"on {place.server}; all keys begin with '{place.prefix}:' and are deleted")
            if "idle" in plan.names:
                tell("idle commands are not counted: the server counts those of its other clients too")
        # Why in turns: a disturbance of the machine meets all of them.
        for repeat in range(plan.repeats + 1):
            for name in plan.names:
                tell(f"{'warm-up' if not repeat else f'repeat {repeat} of {plan.repeats}'}: {name}")
                await bench.take(name, keep=repeat > 0)
        return bench.report(collect_facts(place.server, load_before))


class Bench:
    """Take figures on one server, which is cleared before each.

    Args:
        plan: What to measure.
        place: Where.
    """

    def __init__(self, plan: Plan, place: Place) -> None:
        self._plan = plan
        self._place = place
        self._figures: dict[str, tuple[str, Better, list[float]]] = {}
        self._grains: dict[str, float] = {}
        self._jobs: dict[str, int] = {}
        self._digests: dict[str, str] = {}

    async def take(self, name: str, *, keep: bool) -> None:
        """Take one measure once.

        Args:
            name: A workload or a measure.
            keep: Whether it counts; a warm-up does not.
        """
        await self._place.clear()
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._take(name)
        except TimeoutError as error:
            raise HeadraceError(
                f"the measure '{name}' did not end within {PATIENCE:g} s. Look for what else keeps this machine busy, "
                "or take less with --scale."
            ) from error
        if keep:
            for figure, unit, better, value in found:
                self._figures.setdefault(figure, (unit, better, []))[2].append(value)

    def report(self, facts: dict[str, str]) -> BenchReport:
        """Return what was found."""
        plan = self._plan
        figures = tuple(
            Figure(name, unit, better, tuple(values), self._grains.get(name, 0.0))
            for name, (unit, better, values) in self._figures.items()
        )
        inputs = Inputs(plan.seed, plan.repeats, plan.scale, self._jobs, self._digests)
        return BenchReport(SCHEMA, facts, inputs, figures)

    async def _take(self, name: str) -> list[Taken]:
        if name == "enqueue":
            return await self._enqueue()
        if name == "latency":
            return await self._latency()
        if name == "idle":
            return await self._idle()
        workload = WORKLOADS[name]
        calls = plan_jobs(name, self._plan.count(workload.jobs), self._plan.seed)
        self._jobs[name], self._digests[name] = len(calls), digest_of(calls)
        return await (self._drain(name, calls) if workload.drains else self._bursts(name, calls))

    async def _drain(self, name: str, calls: Sequence[Call]) -> list[Taken]:
        """Have all jobs wait, start the worker, and take the time from the first to the last."""
        async with self._place.app() as app:
            await send(app, calls)
        queues = sorted({call.queue for call in calls})
        async with hire(self._place, Order(queues, SLOTS, len(calls))) as worker:
            found = await worker.result()
        rate = found["jobs"] / found["seconds"]
        each = found["processor_seconds"] / found["jobs"] * 1e6
        return [(f"{name} drain", "jobs/s", "more", rate), (f"{name} CPU", "us/job", "less", each)]

    async def _bursts(self, name: str, calls: Sequence[Call]) -> list[Taken]:
        """Send a burst each interval to a worker that runs; what counts is how late jobs start."""
        async with (
            self._place.app() as app,
            hire(self._place, Order(["bench"], SLOTS, len(calls))) as worker,
        ):
            began = time.monotonic()
            for index, at in enumerate(range(0, len(calls), BURST_JOBS)):
                await asyncio.sleep(began + index * BURST_INTERVAL - time.monotonic())
                await send(app, calls[at : at + BURST_JOBS], sent=time.monotonic())
            found = await worker.result()
        return [(f"{name} start {share}", "ms", "less", found[share] * 1000) for share in ("p50", "p99")]

    async def _enqueue(self) -> list[Taken]:
        """Enqueue in bulk, and one by one, each awaited."""
        plan = self._plan
        calls = plan_jobs("no-op", plan.count(WORKLOADS["no-op"].jobs), plan.seed)
        single = plan.count(SINGLE_JOBS)
        async with self._place.app() as app:
            task = declare(app)
            began = time.perf_counter()
            await send(app, calls)
            bulk = time.perf_counter() - began
            began = time.perf_counter()
            for _ in range(single):
                await task.enqueue("no-op", 0.0, 0.0, TEXT)
            one = time.perf_counter() - began
        return [
            ("enqueue bulk", "jobs/s", "more", len(calls) / bulk),
            ("enqueue single", "jobs/s", "more", single / one),
        ]

    async def _latency(self) -> list[Taken]:
        """Enqueue a job when the worker is idle, again and again: from the call to the start of the job."""
        count = self._plan.count(LATENCY_JOBS)
        async with (
            self._place.app() as app,
            hire(self._place, Order(["bench"], SLOTS, count)) as worker,
        ):
            task = declare(app)
            for _ in range(count):
                await task.enqueue("no-op", 0.0, time.monotonic(), TEXT)
                await asyncio.sleep(LATENCY_PAUSE)
            found = await worker.result()
        return [(f"latency {share}", "ms", "less", found[share] * 1000) for share in ("p50", "p95", "p99")]

    async def _idle(self) -> list[Taken]:
        """Leave a worker of three queues without jobs: its commands, and its processor time."""
        seconds = max(1.0, IDLE_SECONDS * self._plan.scale)
        order = Order([f"idle-{index}" for index in range(3)], 15, 0)
        async with count_commands(self._place) as count, hire(self._place, order) as worker:
            # Why: what the start left to do is done.
            await asyncio.sleep(1.0)
            process = psutil.Process(worker.pid)
            commands, used = await count(), sum(process.cpu_times()[:2])
            began = time.perf_counter()
            await asyncio.sleep(seconds)
            took = time.perf_counter() - began
            used = sum(process.cpu_times()[:2]) - used
            # Why one less: the question itself is a command.
            commands = await count() - commands - 1
            worker.release()
            await worker.result()
        # One command, and one tick of the system's clock of processor time.
        self._grains |= {"idle commands": 5 / seconds, "idle CPU": 100 / os.sysconf("SC_CLK_TCK") / seconds}
        figures: list[Taken] = [("idle commands", "in 5 s", "less", max(0, commands) * 5 / took)]
        figures = figures if self._place.private else []
        return [*figures, ("idle CPU", "% of a core", "less", 100 * used / took)]


@contextlib.asynccontextmanager
async def count_commands(place: Place) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Give a function that says how many commands a private server has got, this one included; 0 for another."""

    async def none() -> int:
        return 0

    if not place.private:
        yield none
        return
    async with redis.asyncio.Redis.from_url(place.url) as client:

        async def count() -> int:
            return int((await client.info("stats"))["total_commands_processed"])

        yield count


def declare(app: Headrace) -> Any:
    """Return the task of the workers, to enqueue jobs of it; the same one for the same app."""

    async def bench(kind: str, amount: float, sent: float, text: str) -> None: ...

    return app.tasks.get(TASK) or app.task(name=TASK, queue="bench")(bench)


async def send(app: Headrace, calls: Sequence[Call], sent: float = 0.0) -> None:
    """Enqueue jobs in bulk, in order within each queue.

    Args:
        app: An open app.
        calls: The jobs.
        sent: When they are sent, by the machine's clock; 0 when their delay does not count.
    """
    task = declare(app)
    by_queue: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
    for call in calls:
        by_queue.setdefault(call.queue, []).append(((call.kind, call.amount, sent, call.text), {}))
    for queue, jobs in by_queue.items():
        await task.using(queue=queue).enqueue_many(jobs)
