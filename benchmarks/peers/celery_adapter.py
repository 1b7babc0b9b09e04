"""Drive Celery on Redis: threads in one process, a message acknowledged after its job ran (`task_acks_late`).

Its default pool forks processes, into which the meter could not see; of the pools that stay in one process, `solo` is
the faster for jobs that do nothing, and `threads` runs sleeping ones side by side. Results are ignored, events,
gossip, mingle and heartbeat are off, as its guide to optimising says. It has no means for many messages, so bulk is the
plain loop over one kept producer.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from adapter_kit import SLEEP_CONCURRENCY, TEXT, Adapter, noop, run, sleep
from celery import Celery  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own

PREFETCH = int(os.environ.get("PEER_PREFETCH", "4"))


class CeleryAdapter(Adapter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        broker = url.replace("unix://", "redis+socket://")
        self.app = Celery("peers", broker=broker, set_as_current=True)
        self.app.conf.update(
            task_ignore_result=True,
            task_acks_late=True,
            worker_prefetch_multiplier=PREFETCH,
            worker_hijack_root_logger=False,
            broker_connection_retry_on_startup=True,
        )
        self.tasks: dict[str, Any] = {
            function.__name__: self.app.task(function, name=function.__name__) for function in (noop, sleep)
        }

    async def open(self) -> None:
        self.producer = self.app.amqp.producer_pool.acquire(block=True)

    async def enqueue_one(self, task: str, number: int) -> None:
        self.tasks[task].apply_async((number, TEXT), producer=self.producer)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        for number in range(count):
            await self.enqueue_one(task, number)

    async def work(self, task: str) -> None:
        pool, threads = ("threads", SLEEP_CONCURRENCY) if task == "sleep" else ("solo", 1)
        self.app.finalize()
        worker = self.app.WorkController(
            pool=pool, concurrency=threads, loglevel="ERROR",
            without_heartbeat=True, without_mingle=True, without_gossip=True,
        )  # fmt: skip
        await asyncio.to_thread(worker.start)


if __name__ == "__main__":
    run(CeleryAdapter)
