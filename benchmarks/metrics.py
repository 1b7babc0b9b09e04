"""Measure what a scrape costs: processor time of the server and of the scraped process, and the size of the answer.

    python benchmarks/metrics.py [--repeats 30]

An app with a worker is asked as a scraper asks it, over several numbers of queues, each of which has waiting jobs and
an hour of counts. The answer about the queues is not kept from one scrape to the next, as it is for 5 s in real life.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from kit import server, spread

from headrace import Headrace
from headrace.resp import pack_command, parse_info

QUEUES = (2, 10, 50, 200)
MINUTES = 60


async def server_cpu(app: Headrace) -> float:
    """Return the processor time of the server so far, seconds."""
    (text,) = await app.control.roundtrip(pack_command("INFO", "cpu"), 1)
    facts = parse_info(text)
    return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])


async def fill(app: Headrace, name: str) -> None:
    """Give a queue jobs, and counts of the last minutes."""
    task = app.tasks.get("nothing")
    assert task is not None
    await task.using(queue=name).enqueue_many([((), {})] * 20)
    now = int(time.time()) // 60
    fields: list[str | int] = []
    for age in range(MINUTES):
        minute = now - age
        for total in ("completed", "failed", "retried", "stalled", "spent_ms"):
            fields += [f"m{minute % 61}{total}@", minute, f"m{minute % 61}{total}", 1_000]
    await app.control.roundtrip(pack_command("HSET", app.store.queue(name).keys["meta"], *fields), 1)


async def measure(app: Headrace, repeats: int) -> tuple[list[float], list[float], float, int]:
    """Return times of scrapes and processor times of the process in ms, that of the server, and the bytes."""
    _ = await app.metrics()
    times, used, size = [], [], 0
    before = await server_cpu(app)
    for _ in range(repeats):
        app.exporter.queues._found_at = 0.0  # noqa: SLF001 - so that the server is asked each time
        began, cpu = time.perf_counter(), time.process_time()
        size = len(await app.metrics())
        used.append((time.process_time() - cpu) * 1000)
        times.append((time.perf_counter() - began) * 1000)
    return times, used, (await server_cpu(app) - before) / repeats * 1000, size


async def main(url: str, repeats: int) -> None:
    """Print a line for each number of queues."""
    print(f"one scrape, median of {repeats} (extremes)")
    print(f"{'queues':>6}  {'time, ms':<20}  {'process, CPU ms':<20}  {'server, CPU ms':<15}  KB")
    made = 0
    app = Headrace(url)

    @app.task(name="nothing")
    async def nothing() -> None: ...

    async with app:
        worker = app.worker(["idle"])
        running = asyncio.create_task(worker.run())
        await worker.signals.started.wait()
        for count in QUEUES:
            # The worker's queue and that of the task are told of too.
            while made < count - 2:
                await fill(app, f"queue-{made:03}")
                made += 1
            times, used, there, size = await measure(app, repeats)
            spent = f"{spread(times, digits=1):<20}  {spread(used, digits=1):<20}  {there:<15.2f}"
            print(f"{count:>6}  {spent}  {size / 1024:.0f}")
        worker.stop()
        await running


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    with server() as private:
        asyncio.run(main(private.url, options.repeats))
