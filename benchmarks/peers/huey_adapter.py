"""Drive huey: threads in one process, a message removed from its list before its job runs.

It keeps no results here (`results=False`), and a job that was taken is lost with its worker: at most once. There is no
means for many messages, so bulk is the plain loop. The consumer's threads are started without its main loop, which only
waits for signals.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from adapter_kit import SLEEP_CONCURRENCY, TEXT, Adapter, noop, run, sleep
from huey import RedisHuey  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own

THREADS = int(os.environ.get("PEER_THREADS", "1"))


class HueyAdapter(Adapter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.huey = RedisHuey("peers", url=url, results=False, blocking=True)
        self.tasks: dict[str, Any] = {function.__name__: self.huey.task()(function) for function in (noop, sleep)}

    async def open(self) -> None:
        self.huey.pending_count()

    async def enqueue_one(self, task: str, number: int) -> None:
        self.tasks[task](number, TEXT)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        call = self.tasks[task]
        for number in range(count):
            call(number, TEXT)

    async def work(self, task: str) -> None:
        threads = SLEEP_CONCURRENCY if task == "sleep" else THREADS
        consumer = self.huey.create_consumer(workers=threads, periodic=False, check_worker_health=False)
        consumer.start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(HueyAdapter)
