"""Try failed jobs again: back-off, a wait that the task asks for, and errors that are not worth another attempt.

Prints::

    fetch: attempts [1, 2, 3] -> page
    poll: attempts [1, 2] -> ready
    charge: dead after 1 attempt, ValueError: card 42 does not exist
"""

import asyncio
import tempfile

from headrace import Exponential, Fixed, Headrace, Retry, current_job
from headrace.errors import JobFailed

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})
seen: list[int] = []


@app.task(attempts=5, backoff=Exponential(base=0.01, maximum=1.0, jitter=True))
async def fetch() -> str:
    seen.append(current_job().attempt)
    if current_job().attempt < 3:
        raise ConnectionError("the site is down")
    return "page"


@app.task(attempts=5, backoff=Fixed(60.0))
async def poll() -> str:
    seen.append(current_job().attempt)
    if current_job().attempt == 1:
        # The task knows better than the back-off when it is worth another attempt.
        raise Retry(after=0.01)
    return "ready"


@app.task(attempts=5, retry_on=ConnectionError)
async def charge(card: int) -> None:
    raise ValueError(f"card {card} does not exist")


async def main() -> None:
    async with app:
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        for name, task in (("fetch", fetch), ("poll", poll)):
            seen.clear()
            result = await (await task.enqueue()).result(timeout=10)
            print(f"{name}: attempts {seen} -> {result}")

        job = await charge.enqueue(42)
        try:
            await job.result(timeout=10)
        except JobFailed:
            last = job.failures[-1]
            print(f"charge: dead after {job.attempts} attempt, {last.error}: {last.message}")
        worker.stop()
        await running


if __name__ == "__main__":
    asyncio.run(main())
