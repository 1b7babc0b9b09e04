"""A server that is killed and restarted on its append-only file loses no accepted job, and workers go on unaided."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from headrace.server import start_private_server
from tests.support.crew import Crew, produce
from tests.support.keyspace import problems
from tests.support.raw import Raw

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stalls import Stalls


async def test_nothing_accepted_is_lost_when_the_server_is_killed_under_load(tmp_path: Path, stalls: Stalls) -> None:
    with start_private_server(tmp_path / "server", extra=("--appendfsync", "always")) as server:
        with Crew(server.url, "restart") as crew:
            workers = [await crew.worker(concurrency=20, lease=10.0) for _ in range(2)]
            async with crew.app(lease=10.0) as app:
                accepted: list[int] = []
                enough = asyncio.Event()
                producing = asyncio.create_task(produce(app, accepted, enough))
                await crew.journal.until("end", 200)

                await asyncio.to_thread(server.kill)
                before = len(accepted)
                await asyncio.to_thread(server.start)
                back = time.monotonic()
                for worker in workers:
                    known = len(crew.journal("start", pid=worker.pid))
                    await crew.journal.until("start", known + 20, pid=worker.pid)
                carried_on = stalls.lasted(back)
                enough.set()
                await producing
                await app.queue("work").drain(timeout=15.0)
                figures = [await worker.stop() for worker in workers]

        with Raw(server.url) as raw:
            assert problems(raw, "restart") == []

    assert 200 <= before < len(accepted)
    assert {entry["number"] for entry in crew.journal("end")} == set(accepted)
    assert carried_on < 2.0
    assert [figure["refused"] for figure in figures] == [0, 0]
    assert len(crew.journal("end")) == len(accepted)

    # Red when: waking.py or flights.py end at a lost connection instead of going on with a new one.
