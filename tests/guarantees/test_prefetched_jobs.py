"""Jobs that a worker held without having started them burn no attempt when it dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.keys import QueueKeys
from headrace.store.replies import is_started

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.raw import Raw


async def test_prefetched_jobs_of_a_killed_worker_run_with_their_first_attempt(crew: Crew, raw: Raw) -> None:
    async with crew.app() as app:
        await app.step.enqueue_many([((number,),) for number in range(400)])
        await app.block.enqueue(400, 60.0)
        await app.step.enqueue_many([((number,),) for number in range(401, 500)])
        victim = await crew.worker(concurrency=4, TEST_BLOCKS="1")
        ((blocked,),) = [[entry["job"]] for entry in await crew.journal.until("start", number=400)]

        held = raw("HGETALL", QueueKeys(crew.prefix, "work")["held"])
        prefetched = {job.decode() for job, hold in held.items() if job and not is_started(hold)} - {blocked}
        assert prefetched, "the kill must strike while jobs are held without having been started"
        await victim.kill()
        await crew.worker(concurrency=4)
        await crew.journal.until("end", 100, pid=crew.workers[-1].pid)
        await app.queue("work").drain(timeout=10.0)

    by_job = {entry["job"]: entry["attempt"] for entry in crew.journal("end", pid=crew.workers[-1].pid)}
    assert {by_job[job] for job in prefetched} == {1}
    assert {entry["number"] for entry in crew.journal("end")} == set(range(500))

    # Red when: reclaim.lua counts an attempt for a job that was only held.
