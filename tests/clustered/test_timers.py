"""A worker of a cluster blocks on each slot of its queues, and has no timer for each of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tests.live import fresh_app, opened, until, working

if TYPE_CHECKING:
    from tests.support.cluster import Cluster

QUEUES = 20


def timers(loop: asyncio.AbstractEventLoop) -> list[str]:
    scheduled: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]  # asyncio's own list
    return [repr(handle) for handle in scheduled if not handle.cancelled()]


async def is_at_rest(loop: asyncio.AbstractEventLoop) -> bool:
    return len(timers(loop)) <= 3


async def test_a_worker_of_twenty_queues_in_a_cluster_has_at_most_three_timers(cluster: Cluster) -> None:
    app = fresh_app(cluster.url)
    loop = asyncio.get_running_loop()

    async with opened(app), working(app, [f"queue-{number}" for number in range(QUEUES)]):
        blocking = 0
        while blocking < QUEUES:
            await asyncio.to_thread(time.sleep, 0.005)
            blocking = sum(":blocking:" in row.name for row in app.census())
        # Each connection has a timer while it is being opened.
        await until(lambda: is_at_rest(loop), "every connection is open")
        looks = []
        for _ in range(100):
            await asyncio.to_thread(time.sleep, 0.002)
            looks.append(timers(loop))

    assert max(map(len, looks)) <= 3, max(looks, key=len)
