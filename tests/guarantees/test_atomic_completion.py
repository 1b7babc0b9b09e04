"""The completion of a job, the jobs that follow it and its result are recorded together or not at all."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from headrace.keys import QueueKeys
from tests.support.keyspace import dump_queue
from tests.support.proxy import calls

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.proxy import FaultProxy
    from tests.support.raw import Raw


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("killed", [True, False], ids=["worker killed", "worker lives"])
async def test_completion_followers_and_result_are_one(
    crew: Crew, proxy: FaultProxy, raw: Raw, *, before: bool, killed: bool
) -> None:
    worker = await crew.worker(concurrency=1, url=proxy.url)
    async with crew.app() as app:
        cut = proxy.arm(calls("settle", also=b"follow"), before=before, hold=True)
        job = await app.chain.enqueue(1)
        await cut.strikes()

        seen = dump_queue(raw, crew.prefix, "work")
        if killed:
            worker.send(signal.SIGKILL)
            await crew.worker(concurrency=1)
        proxy.refusing = False
        result = await job.result(timeout=10.0)
        await crew.journal.until("end", number=2)
        await app.queue("work").drain(timeout=10.0)

    followers = seen.jobs.keys() - {job.id.encode()}
    if before:
        assert set(seen.hashes["held"]) == {job.id.encode()}
        assert (followers, seen.hashes["outcomes"]) == (set(), {})
    else:
        assert job.id.encode() not in seen.jobs
        assert (len(followers), set(seen.hashes["outcomes"])) == (1, {job.id.encode()})
    assert result == 1
    assert len(crew.journal("end", number=2)) == 1
    assert len(crew.journal("start", number=1)) == (2 if before and killed else 1)
    raw("DEL", QueueKeys(crew.prefix, "work")["outcomes"], QueueKeys(crew.prefix, "work")["kept"])

    # Red when: settling.py sends a follower as a call of its own.
