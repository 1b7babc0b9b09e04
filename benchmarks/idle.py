"""Measure what an idle worker costs: commands, processor time, connections, timers; with 3 queues and with 300.

    python benchmarks/idle.py [--seconds 60]

The worker is a process of its own with 5 slots a queue. Commands are what the server's MONITOR shows of the worker;
what a script does inside the server is part of its one command. Processor time is what the operating system charged the
worker; connections are those in the server's CLIENT LIST; timers are those in the worker's census.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import psutil
import redis
from kit import server

WORKER = """
import asyncio, sys
from headrace import Headrace
app = Headrace(sys.argv[1])
count = int(sys.argv[2])

async def main() -> None:
    async with app:
        worker = app.worker(queues={f"queue-{n}": 5 for n in range(count)}, concurrency=5 * min(count, 100))
        running = asyncio.create_task(worker.run())
        await worker.signals.reserved.wait()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(sum(1 for row in app.census() if row.kind == "timer"), flush=True)
        worker.stop()
        await running

try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""


def count_commands(url: str, seconds: float) -> int:
    """Count the commands that clients send for some time, those inside of scripts and this function's own left out."""
    client = redis.Redis.from_url(url)
    count = 0
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py has no types here
        connection = monitor.connection
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if connection.can_read(timeout=left) and monitor.next_command()["client_type"] != "lua":
                count += 1
    client.close()
    return count


def measure(url: str, queues: int, seconds: float) -> None:
    """Run a worker, leave it idle, print what that cost."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(queues)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    client = redis.Redis.from_url(url)
    try:
        worker.stdout.readline()
        process = psutil.Process(worker.pid)
        time.sleep(2)
        used = sum(process.cpu_times()[:2])
        began = time.monotonic()
        commands = count_commands(url, seconds)
        took = time.monotonic() - began
        used = sum(process.cpu_times()[:2]) - used
        connections = sum(1 for row in client.client_list() if row["name"].startswith("headrace"))
        worker.stdin.write("end\n")
        worker.stdin.flush()
        timers = int(worker.stdout.readline())
    finally:
        worker.terminate()
        worker.wait(10)
        client.close()
    print(
        f"{queues:>4} queues   {commands * 5 / took:5.2f} commands in 5 s (at most 1)   "
        f"{100 * used / took:5.3f} % of a core (at most 0.2)   {connections} connections (at most 3)   "
        f"{timers} timers (at most 3)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with server() as private:
        for queues in (3, 300):
            measure(private.url, queues, options.seconds)


if __name__ == "__main__":
    main()
