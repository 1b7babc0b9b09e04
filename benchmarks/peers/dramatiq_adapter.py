"""Drive dramatiq on its Redis broker: threads in one process, a message acknowledged after its job ran.

The middleware is the default one, with retries, so that a job is run at least once; there are no results. Threads and
read-ahead are its documented option `--threads` and variable `dramatiq_queue_prefetch`, set in subjects.toml. As
shipped (8 threads, 16 messages read ahead) the consumer sleeps 5 to 10 ms whenever 16 messages are unfinished, which
bounds it at about 2,000 no-op jobs/s. It has no means for many messages, so bulk is the plain loop, as in its own
`group.run`. It is no asyncio library, so that its sleeping jobs are `time.sleep` in as many threads.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import dramatiq  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own
from adapter_kit import SLEEP_CONCURRENCY, TEXT, Adapter, noop, run, sleep
from dramatiq.brokers.redis import (  # type: ignore[import-not-found, unused-ignore]  # as above
    RedisBroker,
)

THREADS = int(os.environ.get("PEER_THREADS", "8"))


class DramatiqAdapter(Adapter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.broker = RedisBroker(url=url)
        self.actors: dict[str, Any] = {
            function.__name__: dramatiq.actor(function, broker=self.broker) for function in (noop, sleep)
        }

    async def open(self) -> None:
        self.broker.client.ping()

    async def enqueue_one(self, task: str, number: int) -> None:
        self.actors[task].send(number, TEXT)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        actor = self.actors[task]
        for number in range(count):
            actor.send(number, TEXT)

    async def work(self, task: str) -> None:
        threads = SLEEP_CONCURRENCY if task == "sleep" else THREADS
        dramatiq.Worker(self.broker, worker_threads=threads).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(DramatiqAdapter)
