"""Drive RQ: one job after another in the worker's own process (`SimpleWorker`), which is the fastest that it has.

Its default worker forks a process a job; the meter could not see into that, and it is slower. There is no concurrency
within a worker, so that sleeping jobs run one by one: 100 a second at best. Results are off (`result_ttl=0`); jobs are
at most once unless a retry is given. The worker runs in a thread beside the meter, so that it installs no signal
handlers and times its jobs by a timer thread.
"""

from __future__ import annotations

import asyncio

from adapter_kit import TEXT, Adapter, run
from redis import Redis
from rq import Queue, SimpleWorker  # type: ignore[import-not-found, unused-ignore]  # lives in an environment of its own
from rq.timeouts import TimerDeathPenalty  # type: ignore[import-not-found, unused-ignore]  # as above

BATCH = 1_000


class ThreadWorker(SimpleWorker):  # type: ignore[misc, unused-ignore]  # as above
    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        """Leave signals to the main thread."""


class RqAdapter(Adapter):
    async def open(self) -> None:
        self.queue = Queue(connection=Redis.from_url(self.url))

    async def enqueue_one(self, task: str, number: int) -> None:
        # Why by name: RQ refuses functions of the script that was started.
        self.queue.enqueue(f"adapter_kit.{task}", number, TEXT, result_ttl=0)

    async def enqueue_bulk(self, task: str, count: int) -> None:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            self.queue.enqueue_many(
                [Queue.prepare_data(f"adapter_kit.{task}", (number, TEXT), result_ttl=0) for number in numbers]
            )

    async def work(self, task: str) -> None:  # noqa: ARG002 one configuration is the best for both tasks
        connection = Redis.from_url(self.url)
        worker = ThreadWorker([Queue(connection=connection)], connection=connection)
        await asyncio.to_thread(worker.work, logging_level="WARNING")


if __name__ == "__main__":
    run(RqAdapter)
