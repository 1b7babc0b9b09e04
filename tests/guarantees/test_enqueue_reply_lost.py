"""A producer that loses a reply sends its batch again, and every job of it is accepted once, however late that is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy import calls

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.proxy import FaultProxy


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_batch_whose_reply_was_lost_is_accepted_once(crew: Crew, proxy: FaultProxy, *, before: bool) -> None:
    jobs = 2_500
    async with crew.app(url=proxy.url) as app:
        await app.step.enqueue(0)
        cut = proxy.arm(calls("enqueue"), before=before)
        handles = await app.step.enqueue_many([((number,),) for number in range(1, jobs)])
        await cut.strikes()

        await crew.worker(concurrency=50)
        await app.queue("work").drain(timeout=15.0)
        stats = await app.queue("work").stats()

    assert len(handles) == jobs - 1
    assert (stats.completed, stats.failed) == (jobs, 0)
    assert sorted(entry["number"] for entry in crew.journal("end")) == list(range(jobs))

    # Red when: producer.py does not send a batch again, or enqueue.lua accepts an id that is in `jobs`.


async def test_jobs_that_completed_before_their_batch_was_sent_again_do_not_run_again(
    crew: Crew, proxy: FaultProxy
) -> None:
    worker = await crew.worker()
    async with crew.app(url=proxy.url) as app:
        await app.step.enqueue(0)
        cut = proxy.arm(calls("enqueue"), hold=True)
        sending = asyncio.create_task(app.step.enqueue_many([((1,),), ((2,),)]))
        await cut.strikes()
        await crew.journal.until("end", 3)
        await crew.settled()

        proxy.refusing = False
        first, second = await asyncio.wait_for(sending, 10.0)
        await app.queue("work").drain(timeout=10.0)
        await worker.stop()

    assert [entry["number"] for entry in crew.journal("start")] == [0, 1, 2]
    assert [entry["job"] for entry in crew.journal("end")][1:] == [first.id, second.id]

    # Red when: enqueue.lua keeps no receipts of the calls it accepted.


async def test_a_call_from_synchronous_code_whose_reply_was_lost_is_accepted_once(
    crew: Crew, proxy: FaultProxy
) -> None:
    worker = await crew.worker()
    async with crew.app(url=proxy.url) as app:
        cut = proxy.arm(calls("enqueue"), hold=True)
        sending = asyncio.create_task(asyncio.to_thread(app.step.enqueue_sync, 1))
        await cut.strikes()
        await crew.journal.until("end")
        await crew.settled()

        proxy.refusing = False
        job = await asyncio.wait_for(sending, 10.0)
        await app.queue("work").drain(timeout=10.0)
        await worker.stop()

    assert [entry["job"] for entry in crew.journal("start")] == [job.id]

    # Red when: enqueue.lua keeps no receipts of the calls it accepted.
