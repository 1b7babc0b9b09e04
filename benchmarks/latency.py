"""Measure the time from the call of enqueue to the start of the job on an idle worker, beside two bare round trips.

    python benchmarks/latency.py [--count 500]

The worker and the enqueuing code are two processes on one machine, so that both clocks are the same (CLOCK_MONOTONIC).
A bare round trip is one PING of redis-py's asyncio client on the same server; a job needs two on its way: the enqueue,
and the reserve that the wake-up leads to. Between jobs there is a pause, so that the worker is idle again.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import textwrap
import time

import redis.asyncio
from kit import TEXT, server

from headrace import Headrace

WORKER = """
import asyncio, sys, time
from headrace import Headrace
app = Headrace(sys.argv[1])

@app.task(name="stamp", queue="latency", keep_result=0)
async def stamp(sent: float, text: str) -> None:
    print(time.monotonic() - sent, flush=True)

async def main() -> None:
    async with app:
        worker = app.worker(queues=["latency"], concurrency=10)
        running = asyncio.create_task(worker.run())
        await worker.signals.reserved.wait()
        print("ready", flush=True)
        await running

try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""


async def measure(url: str, count: int) -> tuple[list[float], list[float]]:
    """Return the latencies and the bare round trips, in seconds, taken in turns."""
    app = Headrace(url)

    @app.task(name="stamp", queue="latency", keep_result=0)
    async def stamp(sent: float, text: str) -> None: ...

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(WORKER), url, stdout=subprocess.PIPE
    )
    client = redis.asyncio.Redis.from_url(url)
    latencies: list[float] = []
    bare: list[float] = []
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 10)
        async with app:
            for _ in range(count + 20):
                began = time.monotonic()
                await client.ping()
                bare.append(time.monotonic() - began)
                await asyncio.sleep(0.004)
                await stamp.enqueue(time.monotonic(), TEXT)
                latencies.append(float(await asyncio.wait_for(process.stdout.readline(), 10)))
                await asyncio.sleep(0.004)
    finally:
        process.terminate()
        await process.wait()
        await client.aclose()
    return latencies[20:], bare[20:]


def show(name: str, figures: list[float]) -> None:
    """Print percentiles in microseconds."""
    cuts = statistics.quantiles(figures, n=100)
    print(f"{name:<34} p50 {cuts[49] * 1e6:7.0f} us   p95 {cuts[94] * 1e6:7.0f} us   p99 {cuts[98] * 1e6:7.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    with server() as private:
        try:
            import uvloop

            latencies, bare = uvloop.run(measure(private.url, options.count))
        except ImportError:
            latencies, bare = asyncio.run(measure(private.url, options.count))
    show("bare round trip (redis-py)", bare)
    show("enqueue to start, idle worker", latencies)
    ratio = statistics.median(latencies) / (2 * statistics.median(bare))
    print(f"\nmedian latency / median of two bare round trips: {ratio:.2f} (at most 1.5)")


if __name__ == "__main__":
    main()
