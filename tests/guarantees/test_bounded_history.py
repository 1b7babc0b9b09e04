"""Everything that is kept of finished jobs is bounded, however many finish at once and however they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace import Fixed, current_job
from headrace.keys import QueueKeys
from headrace.record import MAX_FAILURES, read_failures
from headrace.worker.attempt import LOG_LINES
from tests.support.crew import DEADLINE
from tests.support.keyspace import dump_queue

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.raw import Raw

JOBS = 1_200
KEEP, KEEP_DEAD = 50, 30


async def test_finished_jobs_are_kept_up_to_their_bounds(crew: Crew, raw: Raw) -> None:
    async with crew.app(keep_finished_count=KEEP, keep_dead_count=KEEP_DEAD) as app:

        @app.task(name="good", queue="work", keep_result=600.0)
        async def good(number: int) -> int:
            await current_job().progress(50, "half")
            return number

        @app.task(name="bad", queue="work", attempts=1)
        async def bad(text: str) -> None:
            raise ValueError(text)

        await good.enqueue_many([((number,),) for number in range(JOBS)])
        await bad.enqueue_many([(("x" * 5_000,),)] * JOBS)
        doomed = await good.using(delay=60.0).enqueue_many([((number,),) for number in range(3 * KEEP)])
        await asyncio.gather(*(job.cancel() for job in doomed))
        await asyncio.wait_for(app.worker(["work"], concurrency=100, burst=True).run(), DEADLINE)
        stats = await app.queue("work").stats()

    seen = dump_queue(raw, crew.prefix, "work")
    assert (stats.completed, stats.failed, stats.cancelled) == (JOBS, KEEP_DEAD, KEEP)
    assert len(seen.hashes["outcomes"]) == KEEP
    assert len(seen.zsets["dead"]) == KEEP_DEAD
    assert len(seen.zsets["cancelled"]) == KEEP
    assert len(seen.jobs) == KEEP_DEAD + KEEP
    assert len(seen.hashes["meta"]) <= 700
    sizes = [raw("MEMORY", "USAGE", key) for key in raw.keys(f"{crew.prefix}:")]
    # A dead job takes its record, and a message and a traceback that are cut: below 16,000 bytes here.
    assert sum(sizes) < KEEP_DEAD * 16_000 + 2 * KEEP * 500 + 100_000

    # Red when: trim.lua drops fewer jobs a call than one call can add.


async def test_what_one_job_leaves_behind_is_bounded(crew: Crew, raw: Raw) -> None:
    async with crew.app() as app:

        @app.task(name="talks", queue="work", attempts=3 * MAX_FAILURES, backoff=Fixed(0.0))
        async def talks() -> None:
            for number in range(30):
                await current_job().log(f"line {number} " + "x" * 5_000)
            raise ValueError("x" * 100_000)

        job = await talks.enqueue()
        await asyncio.wait_for(app.worker(["work"], concurrency=1, burst=True).run(), DEADLINE)

    keys = QueueKeys(crew.prefix, "work")
    failures = read_failures(raw("HGET", keys["errors"], job.id))
    assert len(failures) == MAX_FAILURES
    assert [failure.attempt for failure in failures] == [1, *range(2 * MAX_FAILURES + 2, 3 * MAX_FAILURES + 1)]
    assert raw("HSTRLEN", keys["errors"], job.id) < MAX_FAILURES * 11_000
    assert raw("LLEN", keys.log(job.id)) == LOG_LINES
    assert raw("MEMORY", "USAGE", keys.log(job.id)) < LOG_LINES * 1_200
    assert 0 < raw("TTL", keys.log(job.id)) <= 86_400

    # Red when: record.py keeps every failure, or attempt.py every line of a log.


async def test_receipts_of_a_busy_producer_are_bounded(crew: Crew, raw: Raw) -> None:
    keys = QueueKeys(crew.prefix, "work")
    async with crew.app() as app:
        raw("RPUSH", keys["receipts"], *(f"{number:018}" for number in range(11_000)))

        await app.step.using(delay=60.0).enqueue(1)

    assert raw("LLEN", keys["receipts"]) == 10_000
    assert raw("MEMORY", "USAGE", keys["receipts"], "SAMPLES", 0) < 300_000

    # Red when: enqueue.lua never trims its receipts.
