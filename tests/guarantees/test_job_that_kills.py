"""A job that takes its worker down again and again is dead with that reason, and the jobs beside it are completed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace import JobStatus

if TYPE_CHECKING:
    from tests.support.crew import Crew

MAX_STALLED = 2


@pytest.mark.parametrize("seconds", [0.0, 0.1], ids=["at once", "after a wait"])
async def test_a_job_that_kills_its_workers_dies_and_the_others_live(crew: Crew, seconds: float) -> None:
    crashes = 0
    async with crew.app(max_stalled=MAX_STALLED) as app:
        killer = await app.fall.enqueue(0, seconds)
        beside = await app.step.enqueue_many([((number, 0.4),) for number in range(1, 9)])

        while (await killer.refresh()).status is not JobStatus.FAILED:
            worker = await crew.worker(concurrency=4, HEADRACE_MAX_STALLED=str(MAX_STALLED))
            crashes += await worker.end() == 3
            assert crashes <= MAX_STALLED + 2
            await crew.lease_runs_out()
            await app.store.reclaim(app.user, "work", MAX_STALLED)
        await crew.worker(concurrency=4)
        await app.queue("work").drain(timeout=10.0)
        counts = await app.queue("work").stats()

    details = killer.details
    assert details is not None
    assert details.reason == "stalled"
    assert crashes >= MAX_STALLED + 1
    assert {entry["job"] for entry in crew.journal("end")} == {job.id for job in beside}
    assert counts.failed == 1

    # Red when: reclaim.lua puts a started job back however often it has stalled.
