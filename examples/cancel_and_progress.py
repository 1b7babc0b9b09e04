"""Follow a long job, cancel it, and put it back.

Prints::

    40 %: 4 of 10 files
    log: started
    told to stop
    cancelled: True
    JobCancelled
    retried: True, and waiting
"""

import asyncio
import tempfile

from headrace import Headrace, current_job
from headrace.errors import JobCancelled

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})
four_done = asyncio.Event()


@app.task
async def copy(count: int) -> None:
    job = current_job()
    await job.log("started")
    for number in range(1, count + 1):
        await job.progress(100 * number / count, f"{number} of {count} files")
        if number == 4:
            four_done.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                # Clean up here. The job ends as cancelled, whatever is raised.
                print("told to stop")
                raise


async def main() -> None:
    async with app:
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        job = await copy.enqueue(10)
        await four_done.wait()

        # Any process can look, and cancel: `headrace jobs show ID`, `headrace jobs cancel ID`.
        await job.refresh()
        if job.progress is not None:
            percent, text = job.progress
            print(f"{percent:.0f} %: {text}")
        print(f"log: {', '.join(await job.log_lines())}")

        asked = await job.cancel()
        try:
            await job.result(timeout=10)
        except JobCancelled as error:
            print(f"cancelled: {asked}")
            print(type(error).__name__)
        worker.stop()
        await running

        print(f"retried: {await job.retry()}, and {job.status}")


if __name__ == "__main__":
    asyncio.run(main())
