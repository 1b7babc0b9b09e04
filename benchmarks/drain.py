"""Measure how fast one worker process runs jobs, beside the floor: the same jobs read and settled with no queue at all.

    python benchmarks/drain.py [--jobs 50000] [--repeats 5] [--asyncio]

Floors, on the same server, the same records, 100 jobs in a pipeline, one process:
  redis-py       LPOP an id, HGET its record, HDEL it: three commands a job, through redis-py with hiredis
  bare hiredis   the same commands, packed and parsed by hiredis on a blocking socket
  bulk           LPOP 100 ids, HMGET, HDEL: three commands for 100 jobs, on bare hiredis: what no client can beat

Headrace: one worker, 100 slots, leases, at least once. `no-op` keeps no results, `kept` keeps the outcome of each job
(the default), `sleep` waits 10 ms in each job, for which 10,000 jobs/s is the ideal; `bare sleeps` are 100 coroutines
that do nothing else, so that what the loop's timers take is seen. The clock runs from the first job
to the last. Subjects take turns; the figures are medians with the extremes.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import time
from typing import Any

import hiredis
import redis
from kit import TEXT, server, spread

from headrace import Headrace
from headrace.ids import job_ids
from headrace.record import NO_OPTIONS, BodyWriter, encode_value

BATCH = 100


class Bare:
    """A blocking socket with hiredis on it."""

    def __init__(self, url: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(url.removeprefix("unix://"))
        self.reader = hiredis.Reader()

    def call(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Send a pipeline and return its replies."""
        self.socket.sendall(b"".join([hiredis.pack_command(command) for command in commands]))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self.reader.gets()
            if reply is False:
                self.reader.feed(self.socket.recv(65_536))
            else:
                replies.append(reply)
        return replies


def fill(client: redis.Redis, jobs: int) -> None:
    """Write records and ids as Headrace does."""
    writer = BodyWriter("noop", limit_bytes=1_048_576, compress_over_bytes=4_096)
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]  # redis-py has no types here
    for start in range(0, jobs, 1_000):
        pipe = client.pipeline(transaction=False)
        for number in range(start, start + 1_000):
            job_id = job_ids.make()
            pipe.hset("jobs", job_id, b"\0" * 8 + writer.write(encode_value((number, TEXT)), None, NO_OPTIONS))
            pipe.rpush("wait", job_id)
        pipe.execute()


def floor_redis_py(url: str, client: redis.Redis, jobs: int) -> float:
    """Read and settle with redis-py."""
    del url
    fill(client, jobs)
    began = time.perf_counter()
    for _ in range(0, jobs, BATCH):
        pipe = client.pipeline(transaction=False)
        for _ in range(BATCH):
            pipe.lpop("wait")
        ids = pipe.execute()
        for job_id in ids:
            pipe.hget("jobs", job_id)
        for job_id in ids:
            pipe.hdel("jobs", job_id)
        pipe.execute()
    return jobs / (time.perf_counter() - began)


def floor_hiredis(url: str, client: redis.Redis, jobs: int) -> float:
    """Read and settle with bare hiredis, command by command."""
    fill(client, jobs)
    bare = Bare(url)
    began = time.perf_counter()
    for _ in range(0, jobs, BATCH):
        ids = bare.call([("LPOP", "wait")] * BATCH)
        bare.call([("HGET", "jobs", job_id) for job_id in ids] + [("HDEL", "jobs", job_id) for job_id in ids])
    return jobs / (time.perf_counter() - began)


def floor_bulk(url: str, client: redis.Redis, jobs: int) -> float:
    """Read and settle with bare hiredis, a hundred at a time."""
    fill(client, jobs)
    bare = Bare(url)
    began = time.perf_counter()
    for _ in range(0, jobs, BATCH):
        (ids,) = bare.call([("LPOP", "wait", BATCH)])
        bare.call([("HMGET", "jobs", *ids), ("HDEL", "jobs", *ids)])
    return jobs / (time.perf_counter() - began)


async def bare_sleeps(jobs: int) -> float:
    """Return sleeps/s of 100 coroutines that sleep 10 ms again and again."""

    async def slot() -> None:
        for _ in range(jobs // 100):
            await asyncio.sleep(0.01)

    began = time.perf_counter()
    await asyncio.gather(*(slot() for _ in range(100)))
    return jobs / (time.perf_counter() - began)


async def drain(url: str, jobs: int, *, sleep: float, keep: float | None) -> tuple[float, float]:
    """Enqueue jobs, run them in one worker, return jobs/s and round trips a job."""
    app = Headrace(url)
    left = jobs
    began = ended = 0.0

    @app.task(name="noop", queue="drain", keep_result=keep)
    async def noop(_number: int, _text: str) -> None:
        nonlocal left, began, ended
        if left == jobs:
            began = time.perf_counter()
        if sleep:
            await asyncio.sleep(sleep)
        left -= 1
        if not left:
            ended = time.perf_counter()
            worker.stop()

    async with app:
        await noop.enqueue_many([((number, TEXT),) for number in range(jobs)])
        worker = app.worker(queues=["drain"], concurrency=100)
        stats = await worker.run()
    return jobs / (ended - began), stats.round_trips / jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--asyncio", action="store_true", help="the standard loop although uvloop is installed")
    options = parser.parse_args()
    run: Any = asyncio.run
    if not options.asyncio:
        import uvloop

        run = uvloop.run
    floors = {"floor, redis-py": floor_redis_py, "floor, bare hiredis": floor_hiredis, "floor, bulk": floor_bulk}
    kinds: dict[str, dict[str, Any]] = {
        "headrace, no-op": {"sleep": 0.0, "keep": 0.0},
        "headrace, kept": {"sleep": 0.0, "keep": None},
        "headrace, sleep 10 ms": {"sleep": 0.01, "keep": 0.0},
    }
    figures: dict[str, list[float]] = {name: [] for name in (*floors, "bare sleeps", *kinds)}
    trips: dict[str, list[float]] = {name: [] for name in kinds}
    with server() as private, redis.Redis.from_url(private.url) as client:
        for _ in range(options.repeats):
            for name, floor in floors.items():
                figures[name].append(floor(private.url, client, options.jobs))
            figures["bare sleeps"].append(run(bare_sleeps(options.jobs // 5)))
            for name, kind in kinds.items():
                client.execute_command("FLUSHALL", "SYNC")
                rate, trip = run(drain(private.url, options.jobs, **kind))
                figures[name].append(rate)
                trips[name].append(trip)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    for name, values in figures.items():
        note = f"{statistics.median(trips[name]):.3f} round trips a job" if name in trips else ""
        print(f"{name:<24} {spread(values)} jobs/s  {note}")
    ours = medians["headrace, no-op"]
    print(f"\nno-op / floor: {ours / medians['floor, redis-py']:.2f} of redis-py, ", end="")
    print(f"{ours / medians['floor, bare hiredis']:.2f} of bare hiredis (at least 0.6), ", end="")
    print(f"{ours / medians['floor, bulk']:.2f} of bulk")
    sleeps = medians["headrace, sleep 10 ms"]
    print(f"sleep / ideal: {sleeps / 10_000:.3f} (at least 0.95); {sleeps / medians['bare sleeps']:.3f} of bare sleeps")


if __name__ == "__main__":
    main()
