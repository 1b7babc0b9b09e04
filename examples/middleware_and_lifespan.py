"""Share resources that live as long as a worker, and run code around every job.

Prints::

    pool opened
    before greet
    greet uses the pool: Hello Ann
    after greet: Hello Ann
    before fail
    error in fail: no
    pool closed
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from typing import Any

from headrace import Headrace, resource
from headrace.context import CurrentJob

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


class Pool:
    """Stands for what is costly to open, such as a pool of connections."""

    def look_up(self, name: str) -> str:
        """Return a greeting."""
        return f"Hello {name}"


@app.lifespan
async def database() -> AsyncGenerator[dict[str, Any], None]:
    print("pool opened")
    yield {"pool": Pool()}
    print("pool closed")


class Trace:
    """Any of before, after and error; plain functions or coroutines."""

    async def before(self, job: CurrentJob) -> None:
        """Run before the task; an exception fails the attempt."""
        print(f"before {job.task}")

    def after(self, job: CurrentJob, result: object) -> None:
        """Run after the task returned, before that is recorded."""
        print(f"after {job.task}: {result}")

    def error(self, job: CurrentJob, error: Exception) -> None:
        """Run after the task raised; the exception goes on."""
        print(f"error in {job.task}: {error}")


app.middleware(Trace())


# A parameter whose default is resource() is filled by the worker; it is no argument of the job.
@app.task(name="greet", priority=10)
async def greet(name: str, pool: Pool = resource()) -> str:
    text = pool.look_up(name)
    print(f"greet uses the pool: {text}")
    return text


@app.task(name="fail", attempts=1)
async def fail() -> None:
    raise ValueError("no")


async def main() -> None:
    async with app:
        await greet.enqueue("Ann")
        await fail.enqueue()
        # A burst ends when no job is left that is due.
        await app.worker(concurrency=1, burst=True).run()


if __name__ == "__main__":
    asyncio.run(main())
