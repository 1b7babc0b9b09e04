"""Measure what a job costs in each executor of one worker: coroutine, thread, child process.

    python benchmarks/executors.py [--jobs 5000] [--repeats 5] [--asyncio]

Each job takes a number and a 200-byte text, does nothing and keeps no result. The figures are the time a job takes when
the worker is never idle (100 slots, 4 threads, 1 or 2 children), the time from enqueue to result of one job on an idle
worker, the start of a child until it is ready, and how long that start keeps the loop. Executors take turns; the
figures are medians with the extremes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

from kit import TEXT, server, spread

from headrace import Headrace
from headrace.census import Census
from headrace.worker.job_process import JobProcess
from headrace.worker.location import locate

LONE_JOBS = 200


async def coroutine(_number: int, _text: str) -> None:
    pass


def thread(_number: int, _text: str) -> None:
    pass


def process(_number: int, _text: str) -> None:
    pass


async def measure(url: str, function: Any, jobs: int, *, children: int) -> tuple[float, float]:
    """Return microseconds a job on a busy worker, and milliseconds from enqueue to result on an idle one."""
    app = Headrace(url, settings={"processes": children, "threads": 4})
    task = app.task(name=function.__name__, queue="q", process=function is process, keep_result=0)(function)
    async with app:
        worker = app.worker(queues=["q"], concurrency=100)
        running = asyncio.create_task(worker.run())
        await worker.signals.started.wait()
        warm = await task.using(keep_result=60).enqueue_many([((0, TEXT),)] * children * 20)
        for job in warm:
            await job.result(timeout=60)
        lone: list[float] = []
        for number in range(LONE_JOBS):
            began = time.perf_counter()
            await (await task.using(keep_result=60).enqueue(number, TEXT)).result(timeout=60)
            lone.append(time.perf_counter() - began)
        queue = app.queue("q")
        await queue.pause()
        await task.enqueue_many([((number, TEXT),) for number in range(jobs)])
        done = worker.stats().completed + jobs
        began = time.perf_counter()
        await queue.resume()
        while worker.stats().completed < done:  # noqa: ASYNC110 - the loop of the worker itself is what is measured
            await asyncio.sleep(0.002)
        took = time.perf_counter() - began
        worker.stop()
        await running
    return took / jobs * 1e6, statistics.median(lone) * 1e3


async def start_child(url: str) -> tuple[float, float]:
    """Return milliseconds until a child is ready, and how many of them its start keeps the loop."""
    task = Headrace(url).task(name="process", process=True)(process)
    began = time.perf_counter()
    child = JobProcess(Census(), lambda _: None)
    kept = time.perf_counter() - began
    await child.connect([(task.name, locate(task))], 1_048_576)
    ready = time.perf_counter() - began
    child.close()
    await child.gone
    return ready * 1e3, kept * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--asyncio", action="store_true", help="the standard loop although uvloop is installed")
    options = parser.parse_args()
    run: Any = asyncio.run
    if not options.asyncio:
        import uvloop

        run = uvloop.run
    kinds: dict[str, tuple[Any, int]] = {
        "coroutine": (coroutine, 1),
        "thread": (thread, 1),
        "process, 1 child": (process, 1),
        "process, 2 children": (process, 2),
    }
    busy: dict[str, list[float]] = {name: [] for name in kinds}
    idle: dict[str, list[float]] = {name: [] for name in kinds}
    ready: list[float] = []
    kept: list[float] = []
    with server() as private:
        for _ in range(options.repeats):
            for name, (function, children) in kinds.items():
                took, lone = run(measure(private.url, function, options.jobs, children=children))
                busy[name].append(took)
                idle[name].append(lone)
            until_ready, loop_kept = run(start_child(private.url))
            ready.append(until_ready)
            kept.append(loop_kept)
    for name in kinds:
        print(f"{name:<20} {spread(busy[name], ' us a job', 1)}   alone {spread(idle[name], ' ms', 2)}")
    print(f"\nstart of a child     {spread(ready, ' ms', 0)}, which keeps the loop {spread(kept, ' ms', 1)}")


if __name__ == "__main__":
    main()
