"""Headrace's side of the comparison: the same service on one app and one worker, in one process.

It is run as `python -m headrace.bench.incident.ours`. It uses the public names only, with the settings as they are by
default, but for as many slots as the incident had and its limit of memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import redis.asyncio

from headrace import Headrace
from headrace.bench.incident.side import Side, read_workload
from headrace.bench.incident.workload import INSTANCES, QUEUES, SLOTS, TEXT, Workload
from headrace.errors import HeadraceError


class HeadraceService:
    """The service: requests, a worker of three queues, and a health check, all on the app's pool.

    Args:
        url: The server.
        workload: The load.
    """

    def __init__(self, url: str, workload: Workload) -> None:
        self._workload = workload
        settings = {"memory_limit_mb": workload.memory_limit_mb}
        if most := workload.connections:
            settings |= {"redis_max_connections": most, "redis_min_connections": min(20, most)}
        self._app = app = Headrace(url, settings=settings)
        self._stack = contextlib.AsyncExitStack()
        self._client: Any = None
        self._running: asyncio.Task[Any] | None = None
        self._worker = app.worker(queues=dict.fromkeys(QUEUES, SLOTS * INSTANCES), concurrency=30)
        self.completed = 0
        self.serving = 0

        async def work(number: int, text: str) -> str:
            context = await self._client.get(f"context:{number % 100}")
            await asyncio.sleep(workload.job_seconds(number))
            await self._client.incr(f"usage:{number % 100}")
            self.completed += 1
            return f"{context}:{len(text)}"

        self._tasks = {name: app.task(name=f"work-{name}", queue=name)(work) for name in QUEUES}

    async def start(self) -> None:
        """Open the app and start the worker."""
        await self._stack.enter_async_context(self._app)
        # Why no retries: a refusal counts, on both sides.
        self._client = redis.asyncio.Redis(connection_pool=self._app.pool)
        self._running = asyncio.ensure_future(self._worker.run())
        await self._worker.signals.reserved.wait()

    async def age(self, seconds: float) -> None:
        """Take the readings that the app's monitoring takes in so many seconds: of memory, of the pool, of the health.

        A look at the health takes 20 ms, and what it keeps is full after a few, so that there are at most 100.
        """
        settings, memory = self._app.settings, self._app.memory
        for _ in range(int(seconds / settings.memory_interval)):
            memory.tick()
        for _ in range(int(seconds / settings.pool_stats_interval)):
            self._app.pool.stats().fields()
        for _ in range(min(100, int(seconds / settings.health_interval))):
            await self._app.health()

    async def request(self, number: int, seconds: float) -> None:
        """Read a session, work, enqueue; each command takes a connection for its own time only."""
        try:
            await self._client.get(f"session:{number % 100}")
            self.serving += 1
            try:
                await asyncio.sleep(seconds)
                await self._tasks[self._workload.queue(number)].enqueue(number, TEXT)
            finally:
                self.serving -= 1
        except (HeadraceError, redis.exceptions.RedisError) as error:
            raise OSError(str(error)) from error

    async def probe(self) -> None:
        """Send PING through the same pool as the requests."""
        try:
            await self._client.ping()
        except redis.exceptions.RedisError as error:
            raise OSError(str(error)) from error

    def figures(self) -> dict[str, float]:
        """Return what the pool says."""
        stats = self._app.pool.stats()
        return {"in_use": stats.active, "waiting": stats.waiting, "maximum": stats.maximum}

    def closing_figures(self) -> dict[str, Any]:
        """Return how often the memory governor acted, and how long that took."""
        status = self._app.memory.status()
        return {
            "optimisations": len(status.effects),
            "optimisation_seconds": max((effect.seconds for effect in status.effects), default=0.0),
            "optimisation_freed": sum(effect.freed_bytes for effect in status.effects),
            "listeners": sum(row.kind == "subscription" for row in self._app.census()),
            "pool_waiting_highest": self._app.pool.stats().waiting_highest,
        }

    async def stop(self) -> None:
        """Stop the worker, close the app."""
        self._worker.stop(hard=True)
        if self._running is not None:
            await self._running
        await self._stack.aclose()


async def main() -> None:
    """Run the side that the command line names."""
    url, workload = read_workload()
    await Side(HeadraceService(url, workload), workload).run()


if __name__ == "__main__":
    asyncio.run(main())
