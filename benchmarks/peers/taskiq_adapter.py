"""Drive taskiq on the stream broker of taskiq-redis: coroutines on one loop, a message acknowledged after its job ran.

There is no result backend. Arguments are not validated against the annotations (`--no-parse`), JSON is orjson's, both
as its documents offer. The stream is read 100 messages at a time and 100 jobs run at a time, its defaults. It has no
batch call, so bulk is `gather` over a pool of 20 connections.
"""

from __future__ import annotations

import asyncio
from typing import Any

from adapter_kit import METER, SLEEP_CONCURRENCY, SLEEP_SECONDS, TEXT, Adapter, gather_in_groups, run
from taskiq.api import (  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own
    run_receiver_task,
)
from taskiq.serializers import (  # type: ignore[import-not-found, unused-ignore]  # as above
    ORJSONSerializer,
)
from taskiq_redis import RedisStreamBroker  # type: ignore[import-not-found, unused-ignore]  # as above


async def noop(number: int, text: str) -> None:
    METER.mark(number, text)


async def sleep(number: int, text: str) -> None:
    METER.begin()
    await asyncio.sleep(SLEEP_SECONDS)
    METER.mark(number, text)


class TaskiqAdapter(Adapter):
    async def open(self) -> None:
        # Why: by default a new consumer group starts with the next message, and would miss those that wait.
        broker = RedisStreamBroker(self.url, consumer_id="0", max_connection_pool_size=20)
        self.broker = broker.with_serializer(ORJSONSerializer())
        self.tasks: dict[str, Any] = {
            function.__name__: self.broker.register_task(function, task_name=function.__name__)
            for function in (noop, sleep)
        }
        await self.broker.startup()

    async def enqueue_one(self, task: str, number: int) -> None:
        await self.tasks[task].kiq(number, TEXT)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        await gather_in_groups((self.enqueue_one(task, number) for number in range(count)), 100)

    async def work(self, task: str) -> None:  # noqa: ARG002 one configuration is the best for both tasks
        await self.open()
        await run_receiver_task(self.broker, max_async_tasks=SLEEP_CONCURRENCY, validate_params=False)


if __name__ == "__main__":
    run(TaskiqAdapter, uvloop=True)
