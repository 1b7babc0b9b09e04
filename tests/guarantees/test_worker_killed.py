"""An accepted job is finished although its worker is killed, soon, and nothing else is run twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from headrace.keys import QueueKeys
from tests.support.crew import LEASE

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.raw import Raw
    from tests.support.stalls import Stalls


async def test_every_job_is_finished_soon_after_a_worker_is_killed_under_load(
    crew: Crew, raw: Raw, stalls: Stalls
) -> None:
    jobs, slots = 2_500, 20
    victim = await crew.worker(concurrency=slots)
    await crew.worker(concurrency=slots)
    async with crew.app() as app:
        await app.step.enqueue_many([((number, 0.02),) for number in range(jobs)])
        await crew.journal.until("end", 50, pid=victim.pid)

        killed = await victim.kill()
        held = raw("HGETALL", QueueKeys(crew.prefix, "work")["held"])
        in_flight = {job.decode() for job, hold in held.items() if victim.says("ready")[0]["id"] in hold.decode()}
        assert in_flight, "the kill must strike while jobs run"

        await crew.journal.until("end", jobs)
        await app.queue("work").drain(timeout=10.0)

    ended = crew.journal("end")
    assert {entry["number"] for entry in ended} == set(range(jobs))
    starts = Counter(entry["job"] for entry in crew.journal("start"))
    assert {job for job, count in starts.items() if count > 1} <= in_flight
    again = [entry["at"] for entry in crew.journal("start") if entry["job"] in in_flight and entry["pid"] != victim.pid]
    assert stalls.lasted(killed, max(again)) < LEASE + 1.0

    # Red when: reclaim.lua drops the ids of a lost worker instead of putting them back in their lists.
