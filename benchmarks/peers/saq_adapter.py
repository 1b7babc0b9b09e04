"""Drive SAQ: coroutines on one loop, a job finished in Redis after it ran.

Results are off (`ttl=-1`, which removes a finished job). To run a job at least once SAQ needs its time limit (10 s, the
default), by which it finds stuck jobs, and more than one try (`retries=3`); by default a stuck job is dropped. It has
no batch call, so bulk is `gather`, of which its queue lets 20 pass at a time.
"""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio as redis
from adapter_kit import METER, SLEEP_CONCURRENCY, SLEEP_SECONDS, TEXT, Adapter, gather_in_groups, run
from saq import Worker  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own
from saq.queue.redis import RedisQueue  # type: ignore[import-not-found, unused-ignore]  # as above


async def noop(_: dict[str, Any], *, number: int, text: str) -> None:
    METER.mark(number, text)


async def sleep(_: dict[str, Any], *, number: int, text: str) -> None:
    METER.begin()
    await asyncio.sleep(SLEEP_SECONDS)
    METER.mark(number, text)


class SaqAdapter(Adapter):
    async def open(self) -> None:
        self.queue = RedisQueue(redis.from_url(self.url))
        await self.queue.connect()

    async def enqueue_one(self, task: str, number: int) -> None:
        await self.queue.enqueue(task, number=number, text=TEXT, ttl=-1, retries=3)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        await gather_in_groups((self.enqueue_one(task, number) for number in range(count)), 1_000)

    async def work(self, task: str) -> None:  # noqa: ARG002 one configuration is the best for both tasks
        await self.open()
        await Worker(self.queue, [noop, sleep], concurrency=SLEEP_CONCURRENCY).start()


if __name__ == "__main__":
    run(SaqAdapter, uvloop=True)
