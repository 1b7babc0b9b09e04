"""Drive Headrace itself, in the environment that runs the comparison; on uvloop where that is installed.

Leases and at-least-once are its defaults. By default it keeps the outcome of each job for five minutes; as the peers
are measured with results off, subjects.toml switches that off (HEADRACE_KEEP_RESULT=0) and offers `headrace-as-shipped`
beside it. Bulk is `enqueue_many`.
"""

from __future__ import annotations

import asyncio
import importlib.util

from adapter_kit import METER, SLEEP_CONCURRENCY, SLEEP_SECONDS, TEXT, Adapter, run

from headrace import Headrace

QUEUE = "measured"


async def noop(number: int, text: str) -> None:
    METER.mark(number, text)


async def sleep(number: int, text: str) -> None:
    METER.begin()
    await asyncio.sleep(SLEEP_SECONDS)
    METER.mark(number, text)


class HeadraceAdapter(Adapter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.app = Headrace(url)
        self.tasks = {function.__name__: self.app.task(queue=QUEUE)(function) for function in (noop, sleep)}

    async def open(self) -> None:
        await self.app.__aenter__()

    async def enqueue_one(self, task: str, number: int) -> None:
        await self.tasks[task].enqueue(number, TEXT)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        await self.tasks[task].enqueue_many([((number, TEXT), {}) for number in range(count)])

    async def work(self, task: str) -> None:  # noqa: ARG002 one configuration is the best for both tasks
        async with self.app:
            await self.app.worker(queues=[QUEUE], concurrency=SLEEP_CONCURRENCY).run()


if __name__ == "__main__":
    run(HeadraceAdapter, uvloop=importlib.util.find_spec("uvloop") is not None)
