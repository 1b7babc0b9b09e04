"""Drive arq: coroutines on one loop, a job removed from its queue after it ran.

Results are off (`keep_result=0`). A worker looks for jobs every `poll_delay`, and starts no more than `max_jobs` at
each look, so that the default delay of 0.5 s bounds it at 200 jobs/s; here it is 10 ms. It has no batch call, so bulk
is `gather`, 20 calls at a time; more only open more connections.
"""

from __future__ import annotations

import asyncio
from typing import Any

from adapter_kit import METER, SLEEP_CONCURRENCY, SLEEP_SECONDS, TEXT, Adapter, gather_in_groups, run
from arq import create_pool  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own
from arq.connections import RedisSettings  # type: ignore[import-not-found, unused-ignore]  # as above
from arq.worker import Worker  # type: ignore[import-not-found, unused-ignore]  # as above


async def noop(_: dict[Any, Any], number: int, text: str) -> None:
    METER.mark(number, text)


async def sleep(_: dict[Any, Any], number: int, text: str) -> None:
    METER.begin()
    await asyncio.sleep(SLEEP_SECONDS)
    METER.mark(number, text)


class ArqAdapter(Adapter):
    async def open(self) -> None:
        self.pool = await create_pool(RedisSettings.from_dsn(self.url))

    async def enqueue_one(self, task: str, number: int) -> None:
        await self.pool.enqueue_job(task, number, TEXT)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        await gather_in_groups((self.enqueue_one(task, number) for number in range(count)), 20)

    async def work(self, task: str) -> None:  # noqa: ARG002 one configuration is the best for both tasks
        worker = Worker(
            [noop, sleep],
            redis_settings=RedisSettings.from_dsn(self.url),
            max_jobs=SLEEP_CONCURRENCY,
            poll_delay=0.01,
            keep_result=0,
            handle_signals=False,
        )
        await worker.async_run()


if __name__ == "__main__":
    run(ArqAdapter, uvloop=True)
