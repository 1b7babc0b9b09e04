"""A server that takes no writes for a while, as at a failover, fails no job, no enqueue and no worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.server import start_private_server
from tests.live import DEADLINE, fresh_app, opened, working
from tests.support.raw import Raw

if TYPE_CHECKING:
    from pathlib import Path

JOBS = 200


async def test_jobs_and_enqueues_wait_for_a_read_only_server_and_none_of_them_fails(tmp_path: Path) -> None:
    # Why: a replica without a primary keeps its data and refuses writes.
    with start_private_server(tmp_path, extra=("--appendonly", "no")) as server, Raw(server.url) as raw:
        async with opened(fresh_app(server.url)) as app:
            runs: list[int] = []
            flowing = asyncio.Event()

            @app.task(attempts=1)
            async def work(number: int) -> None:
                runs.append(number)
                flowing.set()
                await asyncio.sleep(0.01)

            async with working(app, concurrency=4) as worker:
                await work.enqueue_many([((number,), {}) for number in range(JOBS)])
                await asyncio.wait_for(flowing.wait(), DEADLINE)
                raw("REPLICAOF", "127.0.0.1", 1)
                late = asyncio.create_task(work.enqueue(JOBS))
                late_sync = asyncio.create_task(asyncio.to_thread(work.enqueue_sync, JOBS + 1))
                done, _ = await asyncio.wait({late, late_sync}, timeout=0.5)
                broken = app.pool.stats().failed_total
                raw("REPLICAOF", "NO", "ONE")

                jobs = await asyncio.wait_for(asyncio.gather(late, late_sync), DEADLINE)
                await app.queue("default").drain(timeout=DEADLINE)
                stats = await app.queue("default").stats()
                figures = worker.stats()

    assert done == set()
    assert broken > 0
    assert len({job.id for job in jobs}) == 2
    assert (stats.completed, stats.failed, stats.retried, stats.stalled) == (JOBS + 2, 0, 0, 0)
    assert sorted(runs) == list(range(JOBS + 2))
    assert figures.completed == JOBS + 2
