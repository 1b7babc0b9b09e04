"""Drive the Python package of BullMQ: coroutines on one loop, a job locked while it runs and found when stalled.

Finished jobs are removed (`removeOnComplete`). It fetches one job at a time, each with a script, so that more than 10
no-op jobs at a time gain nothing and cost bookkeeping. Bulk is `addBulk`, 1,000 jobs in a transaction.
"""

from __future__ import annotations

import asyncio

from adapter_kit import METER, SLEEP_CONCURRENCY, SLEEP_SECONDS, TEXT, Adapter, run
from bullmq import (  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own
    Job,
    Queue,
    Worker,
)

QUEUE = "measured"
BATCH = 1_000
OPTIONS = {"removeOnComplete": True}


async def process(job: Job, _token: str) -> None:
    if job.name == "sleep":
        METER.begin()
        await asyncio.sleep(SLEEP_SECONDS)
    METER.mark(job.data["number"], job.data["text"])


class BullmqAdapter(Adapter):
    async def open(self) -> None:
        self.queue = Queue(QUEUE, {"connection": self.url})

    async def enqueue_one(self, task: str, number: int) -> None:
        await self.queue.add(task, {"number": number, "text": TEXT}, OPTIONS)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            await self.queue.addBulk(
                [{"name": task, "data": {"number": number, "text": TEXT}, "opts": OPTIONS} for number in numbers]
            )

    async def work(self, task: str) -> None:
        concurrency = SLEEP_CONCURRENCY if task == "sleep" else 10
        options = {"connection": self.url, "concurrency": concurrency, "autorun": False}
        await Worker(QUEUE, process, options).run()


if __name__ == "__main__":
    run(BullmqAdapter, uvloop=True)
