"""Enqueue thousands of jobs in one round trip, and wait for all of them.

Prints::

    5000 jobs enqueued
    first: 1, last: 24990001
    completed 5000, failed 0, waiting 0
"""

import asyncio
import tempfile

from headrace import Headrace

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task
async def square(number: int, offset: int = 0) -> int:
    return number * number + offset


async def main() -> None:
    async with app:
        # A call is its arguments, and its keyword arguments if there are any. All are checked before one is written.
        calls = [((number,), {"offset": 1}) for number in range(4_999)]
        jobs = await square.enqueue_many([*calls, ((4_999,),)])
        print(f"{len(jobs)} jobs enqueued")

        worker = app.worker(concurrency=100)
        running = asyncio.create_task(worker.run())
        results = await asyncio.gather(*(job.result(timeout=30) for job in jobs))
        print(f"first: {results[0]}, last: {results[-1]}")

        stats = await app.queue("default").stats()
        print(f"completed {stats.completed}, failed {stats.failed}, waiting {stats.waiting}")
        worker.stop()
        await running


if __name__ == "__main__":
    asyncio.run(main())
