"""The incident's queues: lists in Redis, which a timer a slot asks for jobs and a timer a queue for delayed ones."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from connections import ServicePool

#: Seconds between two polls of a slot, for delayed jobs, and for jobs of lost workers.
SLOT_INTERVAL = 0.1
DELAYED_INTERVAL = 1.0
STALLED_INTERVAL = 30.0


async def repeat(interval: float, act: Callable[[], Awaitable[None]]) -> None:
    """Do something each interval; a failure is left to the next time."""
    while True:
        await asyncio.sleep(interval)
        try:
            await act()
        except (TimeoutError, OSError):
            continue


class PolledQueue:
    """One queue of one instance of the service.

    Args:
        name: Name of the queue.
        pool: Gives the connections.
        run: Runs a job: takes its number and arguments, returns its result.
        completed: Called with each result.
    """

    def __init__(
        self,
        name: str,
        pool: ServicePool,
        run: Callable[[int, dict[str, Any]], Awaitable[str]],
        completed: Callable[[int, str], None],
    ) -> None:
        self.name = name
        self._pool = pool
        self._run = run
        self._completed = completed
        self.done = 0
        self.empty_polls = 0

    def start(self, slots: int) -> list[asyncio.Task[None]]:
        """Start the timers of all slots, the one for delayed jobs, and the one for stalled jobs."""
        timers = [asyncio.create_task(repeat(SLOT_INTERVAL, self._poll)) for _ in range(slots)]
        timers.append(asyncio.create_task(repeat(DELAYED_INTERVAL, self._promote)))
        timers.append(asyncio.create_task(repeat(STALLED_INTERVAL, self._check_stalled)))
        return timers

    async def _poll(self) -> None:
        job = await self._pool.call("RPOPLPUSH", f"{self.name}:waiting", f"{self.name}:active")
        if job is None:
            self.empty_polls += 1
            return
        data = json.loads(await self._pool.call("GET", f"job:{job}"))
        result = await self._run(int(job), data)
        await self._pool.call("SET", f"result:{job}", result, "EX", 300)
        await self._pool.call("LREM", f"{self.name}:active", 1, job)
        await self._pool.call("DEL", f"job:{job}")
        self.done += 1
        self._completed(int(job), result)

    async def _promote(self) -> None:
        now = time.time()
        for job in await self._pool.call("ZRANGEBYSCORE", f"{self.name}:delayed", 0, now):
            if await self._pool.call("ZREM", f"{self.name}:delayed", job):
                await self._pool.call("LPUSH", f"{self.name}:waiting", job)

    async def _check_stalled(self) -> None:
        await self._pool.call("LRANGE", f"{self.name}:active", 0, -1)
