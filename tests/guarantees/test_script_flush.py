"""A server that forgets its scripts under load is taught them again; no job is lost, and none runs twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.raw import Raw

JOBS = 1_500
#: Flushes while jobs ran, at least. A machine that runs the jobs fast leaves time for few.
FLUSHES = 10


async def test_scripts_may_be_flushed_at_any_time(crew: Crew, raw: Raw) -> None:
    for _ in range(2):
        await crew.worker(concurrency=20)
    async with crew.app() as app:

        async def produce() -> None:
            for number in range(JOBS):
                await app.step.enqueue(number, 0.005)

        producing = asyncio.create_task(produce())
        flushes = 0
        while not producing.done() or len(crew.journal("end")) < JOBS:
            raw("SCRIPT", "FLUSH")
            flushes += 1
            await asyncio.wait({producing}, timeout=0.01)
            await asyncio.sleep(0.01)
        await producing
        await app.queue("work").drain(timeout=10.0)

    assert flushes >= FLUSHES
    assert sorted(entry["number"] for entry in crew.journal("start")) == list(range(JOBS))
    assert sorted(entry["number"] for entry in crew.journal("end")) == list(range(JOBS))

    # Red when: store.py does not load the scripts again and send the calls that were not known.
