"""Test code that enqueues, without a server: jobs run inline, and the test sees all of them.

Prints::

    result: Hello Ann
    ran greet with ('Ann',): completed
    ran remind with ('Ann',): completed, delay 3600
"""

import asyncio

from headrace import Headrace, current_job
from headrace.testing import inline

app = Headrace()


@app.task(name="greet")
async def greet(name: str) -> str:
    current_job().follow(remind.using(delay=3600.0), name)
    return f"Hello {name}"


@app.task(name="remind")
async def remind(name: str) -> None: ...


async def sign_up(name: str) -> str:
    """Enqueue as it does in production; nothing here knows of the test."""
    job = await greet.enqueue(name)
    return await job.result(timeout=10)


async def main() -> None:
    async with inline(app) as ran:
        print(f"result: {await sign_up('Ann')}")
        await ran.run_delayed()
        for job in ran.jobs:
            delay = f", delay {job.delay:g}" if job.delay else ""
            print(f"ran {job.task} with {job.arguments}: {job.status}{delay}")


if __name__ == "__main__":
    asyncio.run(main())
