"""Pause a queue, look at it, let it go on, and wait until it is empty.

Prints::

    paused: 100 waiting, 0 active
    why: paused
    drained: 0 waiting, 90 completed, 10 cancelled
    cleared: 10
"""

import asyncio
import tempfile

from headrace import Headrace

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task(queue="bulk")
async def crunch(number: int) -> int:
    return number


async def main() -> None:
    async with app:
        queue = app.queue("bulk")
        worker = app.worker()
        running = asyncio.create_task(worker.run())

        # All workers stop taking jobs within one round trip; those that run finish.
        await queue.pause()
        jobs = await crunch.enqueue_many([((number,),) for number in range(100)])
        stats = await queue.stats()
        print(f"paused: {stats.waiting} waiting, {stats.active} active")
        print(f"why: {(await jobs[0].reason()).code}")

        # A page at a time, so that a long queue blocks nobody.
        page = await queue.jobs("waiting", limit=10)
        for job in page.jobs:
            await job.cancel()

        await queue.resume()
        await queue.drain(timeout=10)
        stats = await queue.stats()
        print(f"drained: {stats.waiting} waiting, {stats.completed} completed, {stats.cancelled} cancelled")
        print(f"cleared: {await queue.clear('cancelled')}")
        worker.stop()
        await running


if __name__ == "__main__":
    asyncio.run(main())
