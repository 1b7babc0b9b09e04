"""A connection that is cut in the middle of a settle loses no result, and no job runs twice because of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.proxy import calls

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.proxy import FaultProxy

JOBS = 400


@pytest.mark.parametrize(
    ("before", "reply_bytes"), [(True, 0), (False, 0), (False, 7)], ids=["before", "after", "in the middle"]
)
async def test_each_job_runs_once_although_settles_are_cut(
    crew: Crew, proxy: FaultProxy, *, before: bool, reply_bytes: int
) -> None:
    worker = await crew.worker(concurrency=20, url=proxy.url, lease=30.0)
    async with crew.app() as app:
        cuts = [proxy.arm(calls("settle"), before=before, reply_bytes=reply_bytes) for _ in range(5)]

        await app.step.enqueue_many([((number, 0.01),) for number in range(JOBS)])
        for cut in cuts:
            await cut.strikes()
        await app.queue("work").drain(timeout=10.0)
        figures = await worker.stop()

    assert sorted(entry["number"] for entry in crew.journal("end")) == list(range(JOBS))
    assert figures["refused"] == 0, "\n".join(map(str, worker.says("log")))

    # Red when: flights.py forgets what was in a round trip that did not come back.
