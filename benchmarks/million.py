"""Measure a million waiting jobs: server memory a job, cost a job beside a short queue, the worker's memory over all.

    python benchmarks/million.py [--jobs 1000000]

Cost is the time to enqueue 10,000 jobs and the time to run 10,000, first with nothing else in the queue and then with a
million in front or behind, in one process of one worker; five rounds each, medians, while the server does not rewrite
its append-only file. Then the worker runs all of them: its resident memory is read after the first 100,000 and at the
end.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

import psutil
from kit import TEXT, server

from headrace import Headrace
from headrace.resp import pack_command, parse_info

PART = 10_000


class Run:
    """One app with one task that counts, and a worker that stops after a number of jobs."""

    def __init__(self, url: str) -> None:
        self.app = Headrace(url)
        self.left = 0
        self.worker: Any = None
        self.ended = 0.0
        self.sizes: list[int] = []
        self.process = psutil.Process()

        @self.app.task(name="noop", queue="million", keep_result=0)
        async def noop(_number: int, _text: str) -> None:
            self.left -= 1
            if not self.left % 100_000:
                self.sizes.append(self.process.memory_info().rss)
            if not self.left:
                self.ended = time.perf_counter()
                self.worker.stop()

        self.noop = noop

    async def enqueue(self, count: int) -> float:
        """Enqueue jobs; return seconds a job."""
        began = time.perf_counter()
        for at in range(0, count, PART):
            await self.noop.enqueue_many([((at + index, TEXT),) for index in range(min(PART, count - at))])
        return (time.perf_counter() - began) / count

    async def drain(self, count: int) -> float:
        """Run jobs; return seconds a job."""
        self.left = count
        self.worker = self.app.worker(queues=["million"], concurrency=100)
        running = asyncio.create_task(self.worker.run())
        await self.worker.signals.reserved.wait()
        began = time.perf_counter()
        await running
        return (self.ended - began) / count

    async def info(self, section: str, name: str) -> int:
        """Return a number that the server tells of itself."""
        (text,) = await self.app.control.roundtrip(pack_command("INFO", section), 1)
        return int(text.decode().split(f"{name}:")[1].split()[0])

    async def cpu(self) -> float:
        """Return the processor time that the server has used, in seconds."""
        (text,) = await self.app.control.roundtrip(pack_command("INFO", "cpu"), 1)
        facts = parse_info(text)
        return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])

    async def round(self) -> tuple[float, float, float, float]:
        """Enqueue and run a part; return seconds a job, of each first all and then the server's own."""
        start = await self.cpu()
        enqueued = await self.enqueue(PART)
        middle = await self.cpu()
        ran = await self.drain(PART)
        return enqueued, (middle - start) / PART, ran, (await self.cpu() - middle) / PART

    async def used_memory(self) -> int:
        """Return the server's memory in bytes."""
        return await self.info("memory", "used_memory")

    async def quiet(self) -> None:
        """Wait until the server does not rewrite its append-only file any more, at most a minute."""
        async with asyncio.timeout(60):
            while await self.info("persistence", "aof_rewrite_in_progress"):  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.2)


async def measure(url: str, jobs: int) -> None:
    """Print all figures."""
    run = Run(url)
    async with run.app:
        await run.enqueue(PART)
        await run.drain(PART)
        short = [await run.round() for _ in range(5)]
        before = await run.used_memory()
        await run.enqueue(PART)
        few = (await run.used_memory() - before) / PART
        await run.enqueue(jobs - PART)
        print(f"server memory a waiting job   {few:.0f} bytes at {PART:,}, ", end="")
        print(f"{(await run.used_memory() - before) / jobs:.0f} bytes at {jobs:,} (at most 350)")
        await run.quiet()
        long = [await run.round() for _ in range(5)]
        for index, name in enumerate(("enqueue", "- of it server", "run", "- of it server")):
            little, much = (statistics.median(pair[index] for pair in pairs) * 1e6 for pairs in (short, long))
            among = f"{much:.1f} us among {jobs:,}: {much / little:.2f} (at most 1.2)"
            print(f"{name:<14} a job   {little:.1f} us alone, {among}")
        run.sizes.clear()
        # Why: a worker that is told to stop ends the jobs of its turn, so that some more than counted are gone.
        left = (await run.app.queue("million").stats()).waiting
        seconds = await run.drain(left)
        early, late = (size / 2**20 for size in (run.sizes[0], run.sizes[-1]))
        print(f"all of them   {1 / seconds:,.0f} jobs/s")
        grown = f"{early:.1f} MB after 100,000, {late:.1f} MB at the end: {late - early:+.1f} (at most +5)"
        print(f"worker's resident memory   {grown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    options = parser.parse_args()
    with server() as private:
        try:
            import uvloop

            uvloop.run(measure(private.url, options.jobs))
        except ImportError:
            asyncio.run(measure(private.url, options.jobs))


if __name__ == "__main__":
    main()
