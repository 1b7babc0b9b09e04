"""Measure what it costs to run a coroutine that never waits: as a task of its own, or driven inside a slot's task.

    python benchmarks/slots.py [--jobs 200000]

No server and no queue: only the step that a worker takes for each job, on the standard loop and on uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import time
from collections import deque
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def noop(_number: int, _text: str) -> None: ...


async def task_each(jobs: int) -> float:
    """Run a task for each job, a hundred at a time."""
    began = time.perf_counter()
    for _ in range(0, jobs, 100):
        await asyncio.gather(*(asyncio.create_task(noop(1, "x")) for _ in range(100)))
    return time.perf_counter() - began


async def inside_slot(jobs: int) -> float:
    """Drive all of them by hand inside one task, each in a context of its own."""
    base = contextvars.copy_context()
    buffer = deque(range(jobs))
    began = time.perf_counter()
    while buffer:
        coroutine = noop(buffer.popleft(), "x")
        try:
            base.copy().run(coroutine.send, None)
        except StopIteration:
            continue
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200_000)
    jobs = parser.parse_args().jobs
    ways: list[Callable[[int], Coroutine[None, None, float]]] = [task_each, inside_slot]
    for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        figures = {way.__name__: min(run(way(jobs)) for _ in range(5)) / jobs * 1e6 for way in ways}
        shown = ", ".join(f"{way} {cost:.2f} us" for way, cost in figures.items())
        print(f"{name:<8} {shown} a job: {figures['task_each'] / figures['inside_slot']:.1f} x")


if __name__ == "__main__":
    main()
