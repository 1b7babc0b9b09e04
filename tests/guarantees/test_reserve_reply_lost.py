"""Jobs that a worker was given in a reply it never got are not stuck until its lease runs out: they are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.proxy import calls

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.proxy import FaultProxy

JOBS = 400


@pytest.mark.parametrize("reply_bytes", [0, 100], ids=["whole", "in the middle"])
async def test_jobs_of_a_lost_reply_are_handed_back_at_once(crew: Crew, proxy: FaultProxy, reply_bytes: int) -> None:
    await crew.worker(concurrency=20, url=proxy.url, lease=30.0)
    async with crew.app() as app:
        cuts = [proxy.arm(calls("reserve"), reply_bytes=reply_bytes) for _ in range(5)]

        await app.step.enqueue_many([((number, 0.01),) for number in range(JOBS)])
        for cut in cuts:
            await cut.strikes()
        await app.queue("work").drain(timeout=20.0)
        stats = await app.queue("work").stats()

    assert sorted(entry["number"] for entry in crew.journal("end")) == list(range(JOBS))
    assert {entry["attempt"] for entry in crew.journal("end")} == {1}
    assert stats.stalled == 0

    # Red when: flights.py does not compare what it holds with the server after a lost reply.


async def test_a_job_that_came_back_in_the_round_trip_that_settled_it_is_not_stuck(
    crew: Crew, proxy: FaultProxy
) -> None:
    worker = await crew.worker(concurrency=1, url=proxy.url, lease=30.0)
    async with crew.app() as app:
        cut = proxy.arm(calls("settle", "reserve", also=b"retry"))

        await app.waver.enqueue(1)
        await cut.strikes()
        # Less than the lease.
        ended = await crew.journal.until("end", timeout=15.0)
        await app.queue("work").drain(timeout=5.0)
        await worker.stop()

    assert [entry["attempt"] for entry in ended] == [2]

    # Red when: flights.py compares ids alone, so that an old end of a job passes for its present hold.


async def test_a_worker_that_stops_after_a_lost_reply_leaves_nothing_held(crew: Crew, proxy: FaultProxy) -> None:
    worker = await crew.worker(concurrency=1, url=proxy.url, lease=30.0)
    async with crew.app() as app:
        cut = proxy.arm(calls("reserve"), hold=True)
        await app.step.enqueue(1)
        await cut.strikes()

        stopping = worker.stop()
        proxy.refusing = False
        await stopping
        other = await crew.worker(concurrency=1)
        # Less than the lease of the first.
        ended = await crew.journal.until("end", timeout=15.0)
        await other.stop()

    assert [entry["attempt"] for entry in ended] == [1]

    # Red when: flights.py does not compare holds with the server in its last round trips.
