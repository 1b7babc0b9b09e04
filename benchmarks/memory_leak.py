"""Run leaking tasks under a limit of memory, with the memory governor and without it, side by side, as a timeline.

    python benchmarks/memory_leak.py [--jobs 8000] [--leak-kb 64] [--room-mb 90] [--limit rlimit|setting]

Each side is `headrace worker -p 2` with the same app and the same limit for each process: RLIMIT_AS, which the system
enforces, or HEADRACE_MEMORY_LIMIT, which nobody enforces but the governor. One task in two keeps what it made. A line
shows, each second: jobs that completed, the resident size of both processes together, processes started so far.
What follows tells what became of the jobs: every one has to complete in its first attempt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from kit import server

from headrace import Headrace
from headrace.errors import JobError

APP = """
import asyncio, os
from headrace import Headrace
app = Headrace()
kept = []

@app.task(queue="leak", attempts=2, keep_result=3600)
async def leak(kilobytes: int) -> list[int]:
    kept.append(os.urandom(1024) * kilobytes)
    await asyncio.sleep(0.02)
    return [os.getpid()]

@app.task(queue="leak", attempts=2, keep_result=3600)
async def steady(kilobytes: int) -> list[int]:
    made = os.urandom(1024) * kilobytes
    await asyncio.sleep(0.02)
    return [os.getpid(), len(made)]
"""
INTERVAL = 1.0
#: A side that completes nothing for so long has come to a stop, seconds.
STANDSTILL = 8.0
MIB = 1_048_576


@dataclass
class Side:
    """One run: its timeline, what the log said, what became of the jobs."""

    name: str
    rows: list[tuple[int, float, int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    completed: int = 0
    failed: int = 0
    retried: int = 0
    processes: int = 0
    seconds: float = 0.0
    errors: set[str] = field(default_factory=set)


class Log(threading.Thread):
    """Read the log of the workers, and keep how many processes have started."""

    def __init__(self, stream: Any) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.lines: list[str] = []
        self.started = 0

    def run(self) -> None:
        for line in self._stream:
            self.started += '"worker process started"' in line
            if any(word in line for word in ('"memory is', "is replaced before", "ran out", "ended by itself", "held")):
                self.lines.append(line)


def start_workers(folder: Path, url: str, options: argparse.Namespace, *, governed: bool) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "REDIS_URL": url, "HEADRACE_LOG_FORMAT": "json", "PYTHONPATH": f"{folder}:" + ":".join(sys.path),
        "MEMORY_OPTIMIZATION_ENABLED": str(governed).lower(), "MEMORY_OPTIMIZATION_INTERVAL_MS": "200",
        "HEADRACE_PREFIX": f"governed-{governed}", "MALLOC_ARENA_MAX": "2",
    }  # fmt: skip
    if options.limit == "setting":
        environment["HEADRACE_MEMORY_LIMIT"] = str(2 * (60 + options.room_mb))

    def bound() -> None:
        if options.limit == "rlimit":
            resource.setrlimit(resource.RLIMIT_AS, (options.address_space, options.address_space))

    command = [sys.executable, "-m", "headrace", "worker", "leaks:app", "-p", "2", "-c", "10", "--no-uvloop"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=bound,  # noqa: PLW1509 - nothing else runs in this process yet
    )  # fmt: skip


def resident(pid: int) -> float:
    total = 0
    for child in psutil.Process(pid).children():
        try:
            total += child.memory_info().rss
        except psutil.Error:
            continue
    return total / MIB


async def follow(
    side: Side, app: Headrace, workers: subprocess.Popen[str], log: Log, options: argparse.Namespace
) -> None:
    """Note what there is to see each second, until no job is left, nothing moves any more, or time is up."""
    began = moved = time.monotonic()
    most = 0
    queue = app.queue("leak")
    while True:
        stats = await queue.stats()
        ended = stats.completed + stats.failed
        side.rows.append((stats.completed, resident(workers.pid), log.started))
        if ended > most:
            most, moved = ended, time.monotonic()
        now = time.monotonic()
        if ended >= options.jobs or now - began > options.timeout or (ended and now - moved > STANDSTILL):
            break
        await asyncio.sleep(INTERVAL)
    side.seconds = moved - began
    side.completed, side.failed, side.retried = stats.completed, stats.failed, stats.retried
    page = await queue.jobs("failed")
    for job in page.jobs[:20]:
        try:
            await job.result(timeout=1)
        except JobError as error:
            side.errors.add(str(error).partition(": ")[2][:100])


async def run_side(folder: Path, url: str, options: argparse.Namespace, *, governed: bool) -> Side:
    """Enqueue the jobs, run the workers until none is left, and return what happened."""
    side = Side("governor on" if governed else "governor off")
    app = Headrace(url, settings={"prefix": f"governed-{governed}"})
    tasks = [app.task(name=f"leaks.{name}", queue="leak")(lambda kilobytes: kilobytes) for name in ("leak", "steady")]
    async with app:
        for _ in range(0, options.jobs, 100):
            for task in tasks:
                await task.enqueue_many([((options.leak_kb,), {})] * 50)
        workers = start_workers(folder, url, options, governed=governed)
        log = Log(workers.stderr)
        log.start()
        try:
            await follow(side, app, workers, log, options)
        finally:
            workers.terminate()
            workers.wait(30)
            log.join(5)
    side.log, side.processes = log.lines, log.started
    return side


def print_sides(sides: list[Side]) -> None:
    """Print both timelines beside each other, and the ends of the jobs."""
    print(f"{'':>6}" + "".join(f"   {side.name:<36}" for side in sides))
    print(f"{'s':>6}" + "".join(f"   {'completed':>9} {'resident, MB':>13} {'processes':>10}  " for _ in sides))
    for at in range(max(len(side.rows) for side in sides)):
        line = f"{at * INTERVAL:>6.1f}"
        for side in sides:
            if at < len(side.rows):
                completed, size, started = side.rows[at]
                line += f"   {completed:>9,} {size:>13,.0f} {started:>10}  "
            else:
                line += " " * 39
        print(line)
    print()
    for side in sides:
        rate = side.completed / side.seconds if side.seconds else 0.0
        print(
            f"{side.name}: {side.completed:,} completed, {side.failed:,} dead, {side.retried:,} attempts burnt, "
            f"{side.processes} processes, highest {max(size for _, size, _ in side.rows):,.0f} MB together, "
            f"{rate:,.0f} jobs/s until the last one"
        )
        for text in sorted(side.errors)[:3]:
            print(f"   dead: {text}")
        for line in side.log[:8]:
            facts = json.loads(line)
            said = {
                name: facts[name] for name in ("used_mb", "gauge", "share_percent", "action", "child") if name in facts
            }
            print(f"   {facts['time'][11:23]} {facts['pid']} {facts['message']}: {said}")


def measure_base(folder: Path, url: str) -> int:
    """Return the address space of a worker that has started, in bytes: the limit leaves some room above it."""
    environment = {**os.environ, "REDIS_URL": url, "PYTHONPATH": f"{folder}:" + ":".join(sys.path)}
    environment |= {"HEADRACE_LOG_FORMAT": "json", "HEADRACE_PREFIX": "base", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-m", "headrace", "worker", "leaks:app", "-c", "10", "--no-uvloop"]
    worker = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert worker.stderr is not None
    for line in worker.stderr:
        if '"worker started"' in line:
            break
    base = psutil.Process(worker.pid).memory_info().vms
    worker.terminate()
    worker.wait(30)
    return int(base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8_000)
    parser.add_argument("--leak-kb", type=int, default=64)
    parser.add_argument("--room-mb", type=int, default=90)
    parser.add_argument("--limit", choices=["rlimit", "setting"], default="rlimit")
    parser.add_argument("--timeout", type=float, default=60.0)
    options = parser.parse_args()
    with server() as private, tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        (folder / "leaks.py").write_text(APP)
        base = measure_base(folder, private.url)
        options.address_space = base + options.room_mb * MIB
        what = (
            f"RLIMIT_AS {options.address_space // MIB:,} MB" if options.limit == "rlimit" else "HEADRACE_MEMORY_LIMIT"
        )
        print(f"limit: {what} for each process, which leaves {options.room_mb} MB above its start\n")
        sides = [asyncio.run(run_side(folder, private.url, options, governed=on)) for on in (False, True)]
    print_sides(sides)


if __name__ == "__main__":
    main()
