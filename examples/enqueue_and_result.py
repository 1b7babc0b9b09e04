"""Enqueue a job and wait for its result.

Prints::

    waiting
    Hello Ann!
    completed
    Hello Bob!
"""

import asyncio
import tempfile

from headrace import Headrace

# Without REDIS_URL a server is started for as long as the app is open; its data go to this folder.
app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task
async def greet(name: str, mark: str = "!") -> str:
    return f"Hello {name}{mark}"


async def main() -> None:
    async with app:
        job = await greet.enqueue("Ann")
        print(job.status)

        # In production, workers are processes of their own: `headrace worker module:app`.
        worker = app.worker(concurrency=10)
        running = asyncio.create_task(worker.run())

        # Nothing is polled: the end of the job is pushed to this process.
        print(await job.result(timeout=10))
        print(job.status)

        # A direct call is a plain call, without a queue.
        print(await greet("Bob"))

        worker.stop()
        await running


if __name__ == "__main__":
    asyncio.run(main())
