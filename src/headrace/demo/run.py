"""The course of the demonstration: enqueue, kill a worker in the middle, add up, count again, compare."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from headrace.demo.app import QUEUES, app, count_file, count_package, make_report
from headrace.demo.check import Evidence, add_facts, count_twice, find_differences, sum_of
from headrace.demo.crew import Crew
from headrace.demo.fault import Fault
from headrace.demo.input import find_input
from headrace.demo.look import Look, describe_server
from headrace.demo.observe import Observer
from headrace.demo.place import LEASE, SLOTS, open_place
from headrace.demo.recount import recount
from headrace.demo.scene import DemoReport, Scene
from headrace.errors import JobError, ResultTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence

    from headrace.demo.app import Count, Report
    from headrace.demo.input import Input, SourceFile
    from headrace.demo.place import Place
    from headrace.demo.recount import FileFacts
    from headrace.job import Job

MAX_JOBS: Final = 200_000
#: Files of one package that one fan-in job adds up at most; a larger package has several.
PART_FILES: Final = 250
#: Fan-in jobs whose files are awaited at once.
PARTS_AT_ONCE: Final = 64
#: Seconds after which the recount lets the display look up.
RECOUNT_TURN: Final = 0.05
#: Longest time of a demonstration in seconds, and more for each job.
PATIENCE: Final = 120.0
PATIENCE_PER_JOB: Final = 0.1


async def run_demo(*, jobs: int | None, show: Callable[[Scene], None], interval: float) -> DemoReport:
    """Run the demonstration; afterwards no process, key or file of it is left.

    Args:
        jobs: File jobs, 1..200000; with more than there are files, files are counted repeatedly. None: a job a file.
        show: Called with the present state.
        interval: Seconds between two looks at it.

    Raises:
        ResultTimeout: It did not end in time.
        HeadraceError: The server could not be started or reached, or a worker ended by itself.
    """
    scene = Scene()
    found = find_input()
    files = found.files
    work = [files[index % len(files)] for index in range(jobs or len(files))]
    scene.jobs, scene.what = len(work), found.what
    async with open_place(len(work)) as place, app, _open_crew(place) as (look, crew):
        demo = Demo(found, work, scene, look, crew)
        patience = PATIENCE + PATIENCE_PER_JOB * len(work)
        try:
            async with asyncio.timeout(patience):
                return await demo.run(show, interval)
        except TimeoutError as error:
            text = f"the demonstration did not end within {patience:g} s: {scene.completed} of {len(work)} file jobs"
            raise ResultTimeout(text + " were completed. Look for what else keeps this machine busy.") from error


@asynccontextmanager
async def _open_crew(place: Place) -> AsyncGenerator[tuple[Look, Crew], None]:
    look, crew = Look(), Crew(place.environment, place.folder)
    try:
        yield look, crew
    finally:
        await crew.stop()
        if not place.own_server:
            await look.delete_keys()


class Demo:
    """One demonstration.

    Args:
        found: The input.
        work: The file of each job.
        scene: Changed as things happen.
        look: Asks the server.
        crew: The workers.
    """

    def __init__(self, found: Input, work: list[SourceFile], scene: Scene, look: Look, crew: Crew) -> None:
        self._found = found
        self._work = work
        self._scene = scene
        self._look = look
        self._crew = crew
        self._fault = Fault(scene, look, crew, len(work))
        self._enqueued: set[str] = set()
        self._lost: set[str] = set()
        self._counts: dict[str, list[Count]] = {}
        self._files_by_pid: Counter[int] = Counter()

    async def run(self, show: Callable[[Scene], None], interval: float) -> DemoReport:
        """Do everything, while the display is kept up to date and the workers are watched."""
        main = asyncio.ensure_future(self._run())
        observer = Observer(self._scene, self._look, self._crew, self._fault, self._files_by_pid)
        beside = [asyncio.ensure_future(observer.run(show, interval)), asyncio.ensure_future(self._crew.broken())]
        try:
            done, _ = await asyncio.wait([main, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {main}:
                task.result()
            return await main
        finally:
            await _cancel([main, *beside])

    async def _run(self) -> DemoReport:
        scene = self._scene
        scene.server = describe_server(await self._look.facts())
        hands = [await self._crew.start(), await self._crew.start()]
        for hand in hands:
            await self._crew.ready(hand)
        scene.tell(f"two workers run, with {SLOTS} slots and a lease of {LEASE:g} s each")
        scene.phase = "jobs"
        began = time.monotonic()
        jobs = await count_file.enqueue_many([((file.root, file.name),) for file in self._work])
        self._enqueued.update(job.id for job in jobs)
        took = (time.monotonic() - began) * 1000
        scene.tell(f"{len(jobs):,} jobs enqueued in one call, a file each: {took:.0f} ms")
        report, _ = await _all([self._add_up(jobs), self._fault.strike()])
        evidence = await self._gather(report)
        await self._crew.stop()
        facts, recount_seconds = await self._recount()
        return self._conclude(evidence, facts, recount_seconds)

    # The work

    async def _add_up(self, jobs: list[Job[Count]]) -> Report:
        """Enqueue the job of a package when its files are counted, and the last one when all packages are."""
        parts: dict[str, list[tuple[Job[Count], SourceFile]]] = {}
        for job, file in zip(jobs, self._work, strict=True):
            parts.setdefault(file.package, []).append((job, file))
        gate = asyncio.Semaphore(PARTS_AT_ONCE)
        counts = await _all(
            self._add_part(gate, package, pairs[at : at + PART_FILES])
            for package, pairs in parts.items()
            for at in range(0, len(pairs), PART_FILES)
        )
        last = await make_report.enqueue([count for count in counts if count is not None])
        self._enqueued.add(last.id)
        report = await last.result()
        self._fault.note(last.id)
        text = (
            f"{len(counts)} jobs added {len(parts)} packages up while others counted, and the last one made the report"
        )
        self._scene.tell(text)
        return report

    async def _add_part(
        self, gate: asyncio.Semaphore, package: str, pairs: list[tuple[Job[Count], SourceFile]]
    ) -> Count | None:
        async with gate:
            counts = await _all(self._take(job, file) for job, file in pairs)
            job = await count_package.enqueue(package, [count for count in counts if count is not None])
            self._enqueued.add(job.id)
            return await self._result(job)

    async def _take(self, job: Job[Count], file: SourceFile) -> Count | None:
        count = await self._result(job)
        if count is None:
            return None
        self._scene.completed += 1
        self._files_by_pid[count.pid] += 1
        count.pid = 0
        # Jobs on the same file must say the same: it is kept once, and once more for each that differs.
        known = self._counts.setdefault(file.name, [])
        if count not in known:
            known.append(count)
        return known[known.index(count)]

    async def _result(self, job: Job[Count]) -> Count | None:
        try:
            return await job.result()
        except JobError as error:
            self._lost.add(job.id)
            self._scene.tell(f"{type(error).__name__}: {error}", "bad")
            return None
        finally:
            self._fault.note(job.id)

    # The evidence

    async def _gather(self, report: Report) -> Evidence:
        stats = [await app.queue(name).stats() for name in QUEUES]
        runs = await self._look.runs()
        self._fault.learn(runs)
        return Evidence(
            work=self._work,
            counts=self._counts,
            report=report,
            enqueued=self._enqueued,
            lost=self._lost,
            runs=runs,
            completed=sum(each.completed for each in stats),
            left=sum(each.waiting + each.delayed + each.active + each.failed for each in stats),
            victim=self._fault.victim_pid,
            victim_held=len(self._fault.held),
            stalled=sum(each.stalled for each in stats),
            retried=sum(each.retried for each in stats),
        )

    async def _recount(self) -> tuple[dict[str, FileFacts], float]:
        scene = self._scene
        scene.phase = "recount"
        wanted = {file.name: file for file in self._work}
        scene.recount_of = len(wanted)
        facts: dict[str, FileFacts] = {}
        began = turn = time.monotonic()
        for name, fact in recount(wanted.values()):
            facts[name] = fact
            scene.recounted = len(facts)
            if time.monotonic() - turn > RECOUNT_TURN:
                await asyncio.sleep(0)
                turn = time.monotonic()
        return facts, time.monotonic() - began

    def _conclude(self, evidence: Evidence, facts: dict[str, FileFacts], recount_seconds: float) -> DemoReport:
        scene, report = self._scene, evidence.report
        differences = find_differences(evidence, facts)
        text = f"the same {len(facts):,} files counted again in this process, without a queue: "
        word = f"{len(differences)} things do not add up" if differences else "all figures agree"
        scene.tell(text + word, "bad" if differences else "good")
        first = min((run.at for run in evidence.runs), default=0.0)
        file_seconds = max(self._fault.ended_at.get(job, first) for job in self._enqueued) - first
        scene.story.sort(key=lambda moment: moment.at)
        return DemoReport(
            ok=not differences,
            differences=differences,
            what=scene.what,
            jobs=len(self._work),
            fan_in_jobs=len(self._enqueued) - len(self._work),
            packages=len(report.packages),
            counted=sum_of(report.total),
            recounted=add_facts(self._work, facts),
            longest=report.total.longest,
            not_parsed=dict(sorted(report.total.reasons.items())),
            kill=self._fault.kill,
            lost=len(self._lost),
            twice=count_twice(evidence),
            throughput=len(self._enqueued) / file_seconds if file_seconds else 0.0,
            jobs_seconds=file_seconds,
            seconds=scene.elapsed,
            recount_seconds=recount_seconds,
            pool_most=scene.pool_most,
            pool_waited=scene.pool_waited,
            worker_connections_most=scene.worker_connections_most,
            memory_most_bytes=scene.memory_most_bytes,
            server=scene.server,
            story=scene.story,
        )


async def _all(work: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines together; when one fails, the others are cancelled before its error goes on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
