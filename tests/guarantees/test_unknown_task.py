"""A job whose task a worker does not know is left to others, with all its attempts, and runs where it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace import JobStatus

if TYPE_CHECKING:
    from tests.support.crew import Crew


async def test_a_job_of_an_unknown_task_waits_for_a_worker_that_knows_it(crew: Crew) -> None:
    ignorant = await crew.worker(build="build_ignorant")
    async with crew.app() as app:
        job = await app.report.enqueue(1, 0.0)
        await ignorant.says.until("log", message="jobs are left to other workers")
        await app.step.enqueue(2)
        await crew.journal.until("end", number=2, pid=ignorant.pid)
        assert (await job.refresh()).status in {JobStatus.DELAYED, JobStatus.WAITING, JobStatus.ACTIVE}

        knowing = await crew.worker()
        pid, attempt, _ = await job.result(timeout=15.0)

    assert (pid, attempt) == (knowing.pid, 1)
    assert [entry["pid"] for entry in crew.journal("start", number=1)] == [knowing.pid]

    # Red when: slots.py buries a job whose task is not registered.
