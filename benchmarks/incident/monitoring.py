"""The incident's monitoring: four monitors an instance, each keeping every sample, and a forced optimisation."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import TYPE_CHECKING, Any

import psutil
from polling import repeat

if TYPE_CHECKING:
    from connections import ServicePool
    from polling import PolledQueue

MONITOR_INTERVAL = 5.0
OPTIMIZE_INTERVAL = 30.0
HEARTBEAT_INTERVAL = 15.0


class Monitoring:
    """Watch one instance of the service.

    Args:
        instance: Its name.
        pool: Its pool.
        queues: Its queues.
    """

    def __init__(self, instance: str, pool: ServicePool, queues: list[PolledQueue]) -> None:
        self._instance = instance
        self._pool = pool
        self._queues = queues
        self._process = psutil.Process()
        self._collected_at = 0.0
        #: Every sample since the start of the process.
        self.history: dict[str, list[dict[str, Any]]] = {"pool": [], "queues": [], "memory": [], "requests": []}
        #: Seconds and freed bytes of each forced optimisation.
        self.optimisations: list[tuple[float, int]] = []

    def start(self) -> list[asyncio.Task[None]]:
        """Start the timers."""
        monitors = (self._watch_pool, self._watch_queues, self._watch_memory, self._watch_requests)
        timers = [asyncio.create_task(repeat(MONITOR_INTERVAL, watch)) for watch in monitors]
        timers.append(asyncio.create_task(repeat(OPTIMIZE_INTERVAL, self._optimize)))
        timers.append(asyncio.create_task(repeat(HEARTBEAT_INTERVAL, self._beat)))
        return timers

    async def age(self, seconds: float) -> None:
        """Take the samples of so many seconds at once, with the lengths that the server tells now."""
        lengths = await self._lengths()
        began = time.time() - seconds
        for tick in range(int(seconds / MONITOR_INTERVAL)):
            now = began + tick * MONITOR_INTERVAL
            self._sample_pool(now)
            self._sample_queues(now, lengths)
            self._sample_memory(now)
            self._sample_requests(now)

    async def _watch_pool(self) -> None:
        self._sample_pool(time.time())

    async def _watch_queues(self) -> None:
        self._sample_queues(time.time(), await self._lengths())

    async def _watch_memory(self) -> None:
        self._sample_memory(time.time())

    async def _watch_requests(self) -> None:
        self._sample_requests(time.time())

    async def _lengths(self) -> dict[str, dict[str, int]]:
        found = {}
        for queue in self._queues:
            waiting = await self._pool.call("LLEN", f"{queue.name}:waiting")
            active = await self._pool.call("LLEN", f"{queue.name}:active")
            delayed = await self._pool.call("ZCARD", f"{queue.name}:delayed")
            found[queue.name] = {"waiting": waiting, "active": active, "delayed": delayed}
        return found

    def _sample_pool(self, now: float) -> None:
        pool = self._pool
        sample = {
            "timestamp": now,
            "instance": self._instance,
            "total": pool.total,
            "in_use": pool.in_use,
            "idle": pool.idle,
            "waiting": pool.waiting,
            "errors": pool.errors,
            "utilisation": pool.in_use / max(1, pool.maximum),
        }
        self.history["pool"].append(sample)

    def _sample_queues(self, now: float, lengths: dict[str, dict[str, int]]) -> None:
        queues = {
            queue.name: {**lengths[queue.name], "completed": queue.done, "empty_polls": queue.empty_polls}
            for queue in self._queues
        }
        self.history["queues"].append({"timestamp": now, "instance": self._instance, "queues": queues})

    def _sample_memory(self, now: float) -> None:
        memory = self._process.memory_info()
        counts = gc.get_count()
        sample = {
            "timestamp": now,
            "rss": memory.rss,
            "vms": memory.vms,
            "percent": memory.rss / (256 * 1024 * 1024),
            "generations": {"young": counts[0], "middle": counts[1], "old": counts[2]},
        }
        self.history["memory"].append(sample)

    def _sample_requests(self, now: float) -> None:
        done = sum(queue.done for queue in self._queues)
        times = os.times()
        sample = {
            "timestamp": now,
            "completed": done,
            "rate": done / max(1.0, now - self._collected_at),
            "cpu": {"user": times.user, "system": times.system},
            "tasks": len(asyncio.all_tasks()),
        }
        self.history["requests"].append(sample)

    async def _optimize(self) -> None:
        before = self._process.memory_info().rss
        began = time.perf_counter()
        gc.collect()
        took = time.perf_counter() - began
        self._collected_at = time.time()
        self.optimisations.append((took, before - self._process.memory_info().rss))

    async def _beat(self) -> None:
        await self._pool.call("SET", f"alive:{self._instance}", int(time.time()), "EX", 60)
