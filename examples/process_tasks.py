"""Run work that needs a processor of its own in child processes, which are killed when they pass their time.

Prints::

    primes below 20000: 2262
    another process: True
    stuck: JobTimeout
    primes below 100: 25
"""

import asyncio
import os
import tempfile

from headrace import Headrace
from headrace.errors import JobFailed

app = Headrace(settings={"data_dir": tempfile.mkdtemp(prefix="headrace-")})


@app.task(process=True)
def count_primes(limit: int) -> tuple[int, int]:
    """Return how many primes there are below a limit, and the process that counted them."""
    sieve = bytearray([1]) * limit
    sieve[0:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return sum(sieve), os.getpid()


@app.task(process=True, attempts=1, timeout=0.2, hard_timeout=0.4)
def stuck() -> None:
    """Ignore the soft timeout; the hard one ends the process, and the job fails."""
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001, S112 - this is what a stuck task is like
            continue


async def main() -> None:
    async with app:
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        primes, process = await (await count_primes.enqueue(20_000)).result(timeout=30)
        print(f"primes below 20000: {primes}")
        print(f"another process: {process != os.getpid()}")

        job = await stuck.enqueue()
        try:
            await job.result(timeout=30)
        except JobFailed:
            print(f"stuck: {job.failures[-1].error}")

        # The worker and its other jobs go on.
        primes, _ = await (await count_primes.enqueue(100)).result(timeout=30)
        print(f"primes below 100: {primes}")
        worker.stop()
        await running


if __name__ == "__main__":
    asyncio.run(main())
