"""A worker that was paused beyond its lease cannot record a result: whoever leased the job after it does."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from headrace import current_job
from headrace.keys import QueueKeys
from tests.support.crew import DEADLINE

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.raw import Raw


async def test_results_of_a_worker_that_was_paused_are_refused_when_others_took_its_jobs(crew: Crew) -> None:
    late = await crew.worker(concurrency=5)
    async with crew.app() as app:
        jobs = [await app.report.enqueue(number, 0.3) for number in range(5)]
        await crew.journal.until("start", 5, pid=late.pid)

        late.send(signal.SIGSTOP)
        other = await crew.worker(concurrency=5)
        results = [await job.result(timeout=10.0) for job in jobs]
        more = await app.report.enqueue_many([((number, 0.1),) for number in range(5, 105)])
        late.send(signal.SIGCONT)
        await late.says.until("log", message="lease lost")
        await more[-1].result(timeout=10.0)
        later = [await job.result(timeout=10.0) for job in more]
        after = [await job.result(timeout=1.0) for job in jobs]
        figures = await late.stop()

    assert [pid for pid, _, _ in results] == [other.pid] * 5
    assert after == results
    assert {attempt for _, attempt, _ in later} == {1}
    assert {pid for pid, _, _ in later} == {late.pid, other.pid}
    assert figures["refused"] == 5
    first = {entry["job"]: entry["fence"] for entry in crew.journal("start", pid=late.pid)}
    assert all(entry["fence"] > first.get(entry["job"], 0) for entry in crew.journal("start", pid=other.pid))

    # Red when: settle.lua takes any hold of a job for the current one.


async def test_a_lone_worker_that_was_paused_runs_its_jobs_again_under_a_new_lease(crew: Crew) -> None:
    late = await crew.worker(concurrency=5)
    async with crew.app() as app:
        jobs = [await app.report.enqueue(number, 0.3) for number in range(5)]
        first = {entry["job"]: entry["fence"] for entry in await crew.journal.until("start", 5)}

        late.send(signal.SIGSTOP)
        await crew.lease_runs_out()
        late.send(signal.SIGCONT)
        results = [await job.result(timeout=10.0) for job in jobs]
        further = await app.report.enqueue(6, 0.0)
        assert (await further.result(timeout=10.0))[1] == 1

    assert [attempt for _, attempt, _ in results] == [2] * 5
    assert all(fence > first[job.id] for job, (_, _, fence) in zip(jobs, results, strict=True))
    figures = await late.stop()
    assert figures["refused"] == 5
    assert figures["reclaimed"] == 5

    # Red when: settle.lua and renew.lua take a lease that ran out as if it were live.


async def test_jobs_reserved_in_the_round_trip_that_refuses_a_late_result_are_run_once(crew: Crew, raw: Raw) -> None:
    keys = QueueKeys(crew.prefix, "work")
    entered, leave = asyncio.Event(), asyncio.Event()
    async with crew.app() as app:
        runs: list[tuple[int, int]] = []

        @app.task(name="gated", queue="work")
        async def gated(number: int) -> None:
            runs.append((number, current_job().attempt))
            if len(runs) == 1:
                entered.set()
                await leave.wait()

        await gated.enqueue(0)
        worker = app.worker(["work"], concurrency=1)
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(entered.wait(), DEADLINE)
        await gated.enqueue(1)

        (name,) = raw("ZRANGE", keys["leases"], 0, -1)
        raw("ZADD", keys["leases"], 1, name)
        await app.store.reclaim(app.user, "work", 3)
        leave.set()
        await app.queue("work").drain(timeout=DEADLINE)
        worker.stop()
        figures = await running

    assert figures.refused == 1
    assert runs == [(0, 1), (0, 2), (1, 1)]

    # Red when: flights.py takes on a new name although the reserve behind the refused settle got a lease under the old.
