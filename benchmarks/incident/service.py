"""Run the incident's service under the load of `headrace bench --compare incident`, which starts it.

It takes the server's address and the load as JSON, and prints one line of JSON a phase; see
`headrace.bench.incident.side`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from connections import ServicePool, send
from monitoring import Monitoring
from polling import PolledQueue

from headrace.bench.incident.side import Side, read_workload
from headrace.bench.incident.workload import INSTANCES, QUEUES, SLOTS, TEXT, Workload

if TYPE_CHECKING:
    from collections.abc import Callable


class IncidentService:
    """The service: requests, two instances of queues and monitoring, and a health check, all on one pool."""

    def __init__(self, url: str, workload: Workload) -> None:
        self._workload = workload
        self._pool = ServicePool(url)
        self._queues = [
            [PolledQueue(name, self._pool, self._run, self._emit) for name in QUEUES] for _ in range(INSTANCES)
        ]
        self._monitors = [
            Monitoring(f"service-{index}", self._pool, queues) for index, queues in enumerate(self._queues)
        ]
        self._timers: list[asyncio.Task[None]] = []
        #: Told of each completed job.
        self._listeners: list[Callable[[int, str], None]] = []
        self.completed = 0
        self.serving = 0

    async def start(self) -> None:
        await self._pool.start()
        for queues, monitor in zip(self._queues, self._monitors, strict=True):
            for queue in queues:
                self._timers += queue.start(SLOTS)
            self._timers += monitor.start()

    async def age(self, seconds: float) -> None:
        for monitor in self._monitors:
            await monitor.age(seconds)

    async def request(self, number: int, seconds: float) -> None:
        async with self._pool.connection() as connection:
            self.serving += 1
            try:
                session = await send(connection, "GET", f"session:{number % 100}")
                await asyncio.sleep(seconds)
                self._listen(number, session)
                await send(connection, "SET", f"job:{number}", json.dumps({"number": number, "text": TEXT}))
                await send(connection, "LPUSH", f"{self._workload.queue(number)}:waiting", number)
            finally:
                self.serving -= 1

    async def probe(self) -> None:
        await self._pool.call("PING")

    def figures(self) -> dict[str, float]:
        pool = self._pool
        return {"in_use": pool.in_use, "waiting": pool.waiting, "maximum": pool.maximum}

    def closing_figures(self) -> dict[str, Any]:
        done = [each for monitor in self._monitors for each in monitor.optimisations]
        return {
            "optimisations": len(done),
            "optimisation_seconds": max((took for took, _ in done), default=0.0),
            "optimisation_freed": sum(freed for _, freed in done),
            "listeners": len(self._listeners),
            "samples": sum(len(history) for monitor in self._monitors for history in monitor.history.values()),
        }

    async def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        await self._pool.close()

    def _listen(self, number: int, session: str | None) -> None:
        """Tell the user of a request when its job is done."""

        def listener(job: int, result: str) -> None:
            if job == number:
                notices.append((session, result))

        notices: list[tuple[str | None, str]] = []
        self._listeners.append(listener)

    def _emit(self, job: int, result: str) -> None:
        self.completed += 1
        for listener in self._listeners:
            listener(job, result)

    async def _run(self, number: int, data: dict[str, Any]) -> str:
        """Run the task: read a context, wait for something outside, count the use."""
        context = await self._pool.call("GET", f"context:{number % 100}")
        await asyncio.sleep(self._workload.job_seconds(number))
        await self._pool.call("INCR", f"usage:{number % 100}")
        return f"{context}:{len(data['text'])}"


async def main() -> None:
    url, workload = read_workload()
    await Side(IncidentService(url, workload), workload).run()


if __name__ == "__main__":
    asyncio.run(main())
