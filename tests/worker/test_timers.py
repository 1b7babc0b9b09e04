"""A worker process has at most three timers at any moment, whatever the number of its queues and slots."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from headrace.census import Kind
from tests.live import fresh_app, opened, working

if TYPE_CHECKING:
    from headrace.server import PrivateServer

MOST = 3
#: Long enough for every duty to run at the least interval that its setting allows, seconds.
WATCHED = 2.5


def timers() -> list[str]:
    """What the running loop has set timers for, cancelled ones left out."""
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # asyncio's own list
    return [repr(handle) for handle in scheduled if not handle.cancelled()]


async def watch(seconds: float) -> list[list[str]]:
    """Look at the timers again and again, without one of our own."""
    looks = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.to_thread(time.sleep, 0.002)
        looks.append(timers())
    return looks


@pytest.mark.parametrize(("queues", "slots"), [(1, 5), (300, 500)])
async def test_an_idle_worker_with_everything_on_has_at_most_three(
    server: PrivateServer, queues: int, slots: int
) -> None:
    app = fresh_app(
        server.url, health_interval=1.0, memory_interval=1.0, pool_stats_interval=1.0, redis_max_connections="auto"
    )

    async with opened(app), working(app, [f"queue-{number}" for number in range(queues)], concurrency=slots):
        before = {stats.name: stats.runs for stats in app.clock.stats()}
        looks = await watch(WATCHED)
        after = {stats.name: stats.runs for stats in app.clock.stats()}
        counted = app.census_book.counts()

    assert len(looks) > 100
    assert all(after[name] > before[name] for name in ("probe redis", "read memory", "look after connections"))
    assert {"renew places", "renew leases", "register worker", "survey queues"} <= after.keys()
    # Between two runs of a duty there is the clock's one.
    assert sum(len(look) == 1 for look in looks) > 0.9 * len(looks), looks[len(looks) // 2]
    assert max(map(len, looks)) <= MOST, max(looks, key=len)
    assert counted[Kind.TIMER] == 1


async def test_a_worker_under_load_has_no_timer_a_job(server: PrivateServer) -> None:
    app = fresh_app(server.url)

    @app.task(name="wait", timeout=30.0)
    async def wait() -> None:
        await end.wait()

    end, jobs = asyncio.Event(), 400
    async with opened(app), working(app, concurrency=jobs) as worker:
        await wait.enqueue_many([((),)] * jobs)
        while worker.stats().running < jobs:
            await asyncio.to_thread(time.sleep, 0.002)
        looks = await watch(0.5)
        end.set()

    # One more for the batch of completions that is being gathered.
    assert max(map(len, looks)) <= MOST + 1, max(looks, key=len)
