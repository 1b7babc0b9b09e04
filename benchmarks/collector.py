"""Measure the collector of the interpreter in a worker: as Python sets it, and as Headrace sets it for a worker.

    python benchmarks/collector.py [--jobs 20000] [--repeats 3] [--objects 1000000]

Each run is a worker process of its own that holds `--objects` objects from its start, as an app with its imports and
caches does, and runs jobs that make some 400 objects each, a few of them in cycles. Printed are jobs/s, the pauses that
the collector made while the jobs ran, full collections in the middle of a batch, and memory at the end. Subjects take
turns; figures are medians with the extremes.

Then what the memory governor itself costs: one reading, the proportional size, a look at one job, a trace.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from kit import server, spread

WORKER = """
import asyncio, gc, json, sys, time
from headrace import Headrace

url, jobs, objects, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
held = [{"number": number, "text": str(number)} for number in range(objects // 2)]
app = Headrace(url, settings={"memory_collector": mode, "prefix": f"collector-{mode}"})
left = jobs
began = ended = 0.0
inside = full = 0

@app.task(queue="work", keep_result=0)
async def work(number: int) -> None:
    global left, began, ended
    if left == jobs:
        began = time.perf_counter()
    rows = [{"id": (number, at), "tags": [at]} for at in range(100)]
    for row in rows[:10]:
        row["self"] = row
    left -= 1
    if not left:
        ended = time.perf_counter()
        worker.stop()

pauses = []

def watch(phase, info):
    global inside, full, since
    if not began or ended:
        return
    if phase == "start":
        since = time.perf_counter()
        return
    pauses.append((time.perf_counter() - since) * 1e3)
    if info["generation"] == 2:
        full += 1
        task = asyncio.current_task()
        inside += task is not None and task.get_name().startswith("slot")

async def main():
    global worker
    async with app:
        await work.enqueue_many([((number,), {}) for number in range(jobs)])
        worker = app.worker(queues=["work"], concurrency=100)
        gc.callbacks.append(watch)
        await worker.run()
        used = app.memory.status().used_bytes
        pauses.sort()
        print(json.dumps({
            "rate": jobs / (ended - began), "longest_ms": pauses[-1], "p99_ms": pauses[int(len(pauses) * 0.99)],
            "paused_ms": sum(pauses), "full": full, "inside": inside, "used_mb": used / 1048576,
        }))

try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""


def run(url: str, jobs: int, objects: int, mode: str) -> dict[str, float]:
    """Run one worker and return its figures."""
    command = [sys.executable, "-c", WORKER, url, str(jobs), str(objects), mode]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(text)
    return figures


def compare(url: str, options: argparse.Namespace) -> None:
    """Print both ways side by side."""
    found: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    for _ in range(options.repeats):
        for mode, runs in found.items():
            runs.append(run(url, options.jobs, options.objects, mode))
    rows = [
        ("jobs/s", "rate", 0), ("longest pause, ms", "longest_ms", 1), ("pauses p99, ms", "p99_ms", 2),
        ("all pauses, ms", "paused_ms", 0), ("full collections", "full", 0), ("of them inside a batch", "inside", 0),
        ("resident size, MB", "used_mb", 0),
    ]  # fmt: skip
    print(f"{'':<24} {'as Python sets it':<28} as Headrace sets it")
    for name, key, digits in rows:
        off, on = (spread([figures[key] for figures in found[mode]], digits=digits) for mode in ("off", "on"))
        print(f"{name:<24} {off:<28} {on}")


def each(call: Any, count: int) -> float:
    """Return microseconds of one call, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - began) / count)
    return best * 1e6


def allocate() -> None:
    rows = [{"id": (1, at), "tags": [at]} for at in range(1_000)]
    del rows


def print_costs() -> None:
    """Print what looking at memory costs."""
    import tracemalloc

    from headrace.memory.governor import Governor
    from headrace.memory.probes import read_allocated, read_blocks, read_peak, read_proportional, read_usage

    governor = Governor()
    held = [{"number": number} for number in range(200_000)]
    print(f"\nin a process of {read_usage().resident / 1_048_576:,.0f} MB, microseconds:")
    print(f"  resident size {each(read_usage, 1_000):.1f}, peak {each(read_peak, 1_000):.1f}, ", end="")
    print(f"blocks {each(read_blocks, 200):.1f}, allocated {each(read_allocated, 200):.1f}, ", end="")
    print(f"proportional size {each(read_proportional, 50):.0f}")
    for _ in range(600):
        governor.tick()
    tick = each(governor.tick, 50)
    print(f"  one reading of the governor {tick:.0f}: {tick / 5e6:.4%} of a core at one every 5 s")
    plain = each(allocate, 50)
    tracemalloc.start(1)
    traced = statistics.median(each(allocate, 50) for _ in range(3))
    overhead = tracemalloc.get_tracemalloc_memory()
    tracemalloc.stop()
    print(f"  allocations under a trace take {traced / plain:.1f} times as long; it holds {overhead / 1_024:,.0f} KB")
    del held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--objects", type=int, default=1_000_000)
    options = parser.parse_args()
    with server() as private:
        compare(private.url, options)
    print_costs()


if __name__ == "__main__":
    main()
