"""The pool never holds more connections than its maximum, and leases never wait behind jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace.errors import PoolTimeout
from headrace.keys import QueueKeys
from tests.live import plain_link
from tests.support.crew import DEADLINE, LEASE
from tests.support.proxy import calls

if TYPE_CHECKING:
    from tests.support.crew import Crew
    from tests.support.proxy import FaultProxy
    from tests.support.raw import Raw


def connections(raw: Raw, name: str) -> int:
    return sum(f"name={name}" in line for line in raw("CLIENT", "LIST").decode().splitlines())


async def test_a_loaded_app_stays_within_its_connections(crew: Crew, raw: Raw) -> None:
    async with crew.app(redis_max_connections=4) as app:

        @app.task(name="echo", queue="work", keep_result=5.0)
        async def echo(number: int) -> int:
            await asyncio.sleep(0.01)
            return number

        name = plain_link(app.control).name.rsplit(":", 2)[0]
        worker = app.worker(["work"], concurrency=50)
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(worker.signals.reserved.wait(), DEADLINE)

        jobs = await asyncio.gather(*(echo.enqueue(number) for number in range(300)))
        waits = asyncio.gather(*(job.result(timeout=DEADLINE) for job in jobs))
        with pytest.raises(PoolTimeout, match="lane 'jobs' has no connection left: 1 of 1 in use by 'worker'"):
            await asyncio.wait_for(app.worker(["work"]).run(), 5.0)
        most = connections(raw, name)
        while not waits.done():
            await asyncio.wait({waits}, timeout=0.01)
            most = max(most, connections(raw, name))
        worker.stop()
        await running

    assert sorted(await waits) == list(range(300))
    assert most == 4

    # Red when: pool.py gives out a link beyond its maximum.


async def test_a_lease_is_renewed_although_the_replies_about_jobs_do_not_come(
    crew: Crew, proxy: FaultProxy, raw: Raw
) -> None:
    worker = await crew.worker(concurrency=5, url=proxy.url)
    async with crew.app() as app:
        cut = proxy.arm(calls("settle"), stall=True)
        jobs = await app.report.enqueue_many([((number, 0.0 if number else 60.0),) for number in range(2)])
        await cut.strikes()
        await crew.lease_runs_out()
        await crew.lease_runs_out()

        seconds, micros = raw("TIME")
        ((_, deadline),) = raw("ZRANGE", QueueKeys(crew.prefix, "work")["leases"], 0, -1, "WITHSCORES")
        left = deadline / 1000 - int(seconds) - int(micros) / 1_000_000
        proxy.release(cut)
        assert (await jobs[1].result(timeout=DEADLINE))[1] == 1
        await jobs[0].cancel()
        await app.queue("work").drain(timeout=DEADLINE)
        await worker.stop()

    assert 0 < left <= LEASE
    assert worker.says("log", message="lease lost") == []
    assert len(crew.journal("start")) == 2

    # Red when: lease.py renews over the lane of the jobs.
