"""Replay connection starvation on redis-py's two pools and on Headrace's, in one run.

300 users, a worker, a dashboard and a health check share one pool: first with 20 connections, then with the size that
Headrace's own figures recommend. A user's request holds its connection for 100 to 300 ms, as a slow command does; so do
20 jobs of the worker, and the lanes of users and of jobs are both full. All three run the same program with the same
seed; only the pool differs, and Headrace's has lanes: with 20 connections, 8 are kept for the worker, its lease and the
probe, so users get fewer than from a pool that lets them have all. A wait or a probe that had not ended at the end of
the run counts with the time it had taken by then. At the recommended size the one core of the program is the limit, not
the pool, and its loop is late for all three.

    python benchmarks/pool_starvation.py [--seconds 10] [--users 300]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis.asyncio
import redis.exceptions
from kit import server

from headrace.bench.timing import quantile
from headrace.pool import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SMALL = 20
#: Slots of the worker, each blocking for jobs, and jobs of it that hold a connection as users do.
SLOTS = 4
JOBS = 20
HOLD = (0.1, 0.3)
PROBE_INTERVAL = 0.02
LANES = {"control": 2, "blocking": SLOTS, "jobs": 2}


@dataclass
class Figures:
    """What one run showed; waits and probes in seconds."""

    name: str
    size: int
    waits: list[float] = field(default_factory=list)
    job_waits: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    unloaded: list[float] = field(default_factory=list)
    renewals: list[float] = field(default_factory=list)
    in_use: int = 0
    at_server: int = 0
    waiting: int = 0
    waiting_now: int = 0
    errors: int = 0
    failed_probes: int = 0
    requests: int = 0
    jobs: int = 0
    starved: int = 0
    seconds: float = 0.0
    stopped: bool = False


class Clients:
    """The clients of one run: all of one pool, or each of its lane."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        laned = isinstance(pool, ConnectionPool)

        def client(lane: str) -> Any:
            given: Any = {"connection_pool": pool.lane(lane, purpose=lane) if laned else pool, "retry": None}
            return redis.asyncio.Redis(**given)

        self.control, self.blocking, self.jobs, self.user = map(client, ("control", "blocking", "jobs", "user"))


async def user(number: int, clients: Clients, figures: Figures) -> None:
    """Make one request after another: wait for a connection, hold it, enqueue a job."""
    rng = random.Random(number)
    pool = clients.user.connection_pool
    # They come within the first second.
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    served = 0
    # When the request under way was made; one that was refused and is made again waits on.
    began = 0.0
    try:
        while not figures.stopped:
            began = began or time.perf_counter()
            figures.waiting_now += 1
            figures.waiting = max(figures.waiting, figures.waiting_now)
            try:
                connection = await pool.get_connection()
            except redis.exceptions.ConnectionError:
                figures.errors += 1
                await asyncio.sleep(rng.uniform(0.05, 0.15))
                continue
            finally:
                figures.waiting_now -= 1
            figures.waits.append(time.perf_counter() - began)
            began = 0.0
            try:
                await connection.send_command("BLPOP", "nothing", f"{rng.uniform(*HOLD):.3f}")
                await connection.read_response()
                await connection.send_command("RPUSH", "jobs", "x")
                await connection.read_response()
            finally:
                await pool.release(connection)  # type: ignore[possibly-undefined]  # an error above goes on with the loop
            served += 1
            figures.requests += 1
    finally:
        figures.starved += served == 0
        if began:
            figures.waits.append(time.perf_counter() - began)


async def every(interval: float, act: Callable[[], Awaitable[object]], times: list[float], figures: Figures) -> None:
    """Do something each interval and note how long it took, waits included."""
    while not figures.stopped:
        began = time.perf_counter()
        try:
            await act()
        except redis.exceptions.RedisError:
            figures.errors += 1
            figures.failed_probes += times is figures.probes
        else:
            times.append(time.perf_counter() - began)
            began = 0.0
        finally:
            if began and figures.stopped:
                times.append(time.perf_counter() - began)  # type: ignore[unreachable]  # another task stops it
        await asyncio.sleep(interval)


async def slot(clients: Clients, figures: Figures) -> None:
    """Block for jobs and record their results."""
    while not figures.stopped:
        try:
            if await clients.blocking.blpop("jobs", timeout=1):
                await clients.blocking.incr("done")
                figures.jobs += 1
        except redis.exceptions.RedisError:
            figures.errors += 1
            await asyncio.sleep(0.05)


async def job(number: int, clients: Clients, figures: Figures) -> None:
    """Hold a connection of the jobs lane again and again, as a job with slow commands does."""
    rng = random.Random(1_000_000 + number)
    pool = clients.jobs.connection_pool
    while not figures.stopped:
        began = time.perf_counter()
        try:
            connection = await pool.get_connection()
        except redis.exceptions.ConnectionError:
            figures.errors += 1
            await asyncio.sleep(rng.uniform(0.05, 0.15))
            continue
        finally:
            figures.job_waits.append(time.perf_counter() - began)
        try:
            await connection.send_command("BLPOP", "nothing", f"{rng.uniform(*HOLD):.3f}")
            await connection.read_response()
        finally:
            await pool.release(connection)


async def dashboard(clients: Clients) -> None:
    """Read what a dashboard reads."""
    async with clients.control.pipeline(transaction=False) as pipe:
        await pipe.llen("jobs").get("done").info("clients").execute()


async def watch_server(watcher: Any, pool: Any, figures: Figures) -> None:
    """Count the connections that the server sees, less the one that asks, and those that the pool says are in use."""
    while not figures.stopped:
        figures.in_use = max(figures.in_use, len(pool._in_use_connections))  # noqa: SLF001 - all pools have it
        clients = await watcher.client_list()
        figures.at_server = max(figures.at_server, len(clients) - 1)
        await asyncio.sleep(0.1)


async def measure(name: str, url: str, size: int, make: Callable[[int], Any], users: int, seconds: float) -> Figures:
    """Run the program on one pool."""
    figures = Figures(name, size)
    pool = make(size)
    clients = Clients(pool)
    watcher = redis.asyncio.Redis.from_url(url)
    await watcher.flushall()

    async def run(length: float, *coros: Any) -> None:
        tasks = [asyncio.create_task(coro) for coro in coros]
        await asyncio.sleep(length)
        figures.stopped = True
        # Why: the `wait_for` of Python 3.11, which redis-py uses, may swallow a cancellation.
        while tasks:
            for task in tasks:
                task.cancel()
            _, pending = await asyncio.wait(tasks, timeout=0.5)
            tasks = list(pending)
        figures.stopped = False

    await run(2.0, every(PROBE_INTERVAL, clients.control.ping, figures.unloaded, figures))
    began = time.perf_counter()
    await run(
        seconds,
        *(user(number, clients, figures) for number in range(users)),
        *(slot(clients, figures) for _ in range(SLOTS)),
        *(job(number, clients, figures) for number in range(JOBS)),
        every(0.25, lambda: clients.control.set("lease", "worker"), figures.renewals, figures),
        every(0.5, lambda: dashboard(clients), [], figures),
        every(PROBE_INTERVAL, clients.control.ping, figures.probes, figures),
        watch_server(watcher, pool, figures),
    )
    figures.seconds = time.perf_counter() - began
    with contextlib.suppress(redis.exceptions.RedisError):
        await pool.aclose()
    await watcher.aclose()
    return figures


def milliseconds(values: list[float]) -> str:
    """Return the 99th percentile."""
    return f"{quantile(values, 0.99) * 1000:,.2f} ms" if values else "none got through"


def ratio(run: Figures) -> str:
    """Return how much longer the probe takes under load."""
    return f"{quantile(run.probes, 0.99) / quantile(run.unloaded, 0.99):,.1f} x" if run.probes else "-"


def rows(found: list[Figures]) -> list[tuple[str, list[str]]]:
    """Return the table: one row a figure, one column a run."""
    return [
        ("connections at most", [f"{run.size}" for run in found]),
        ("highest in use (pool says)", [f"{run.in_use}" for run in found]),
        ("highest at the server", [f"{run.at_server}" for run in found]),
        ("highest waiting users", [f"{run.waiting}" for run in found]),
        ("wait p50", [f"{quantile(run.waits, 0.5) * 1000:,.1f} ms" for run in found]),
        ("wait p99", [f"{quantile(run.waits, 0.99) * 1000:,.1f} ms" for run in found]),
        ("longest / median wait", [f"{max(run.waits) / max(quantile(run.waits, 0.5), 1e-6):,.1f}" for run in found]),
        ("wait of jobs p99", [milliseconds(run.job_waits) for run in found]),
        ("users never served", [f"{run.starved}" for run in found]),
        ("health probe p99, unloaded", [f"{quantile(run.unloaded, 0.99) * 1000:,.2f} ms" for run in found]),
        ("health probes refused", [f"{run.failed_probes} of {run.failed_probes + len(run.probes)}" for run in found]),
        ("health probe p99, loaded", [milliseconds(run.probes) for run in found]),
        ("loaded / unloaded", [ratio(run) for run in found]),
        ("lease renewal, slowest", [f"{max(run.renewals, default=0) * 1000:,.1f} ms" for run in found]),
        ("errors", [f"{run.errors:,}" for run in found]),
        ("requests", [f"{run.requests / run.seconds:,.0f}/s" for run in found]),
        ("jobs run", [f"{run.jobs / run.seconds:,.0f}/s" for run in found]),
    ]


def show(title: str, found: list[Figures]) -> None:
    """Print runs side by side."""
    print(f"{title:<28}" + "".join(f"{run.name:>26}" for run in found))
    for label, cells in rows(found):
        print(f"{label:<28}" + "".join(f"{cell:>26}" for cell in cells))
    print()


def lanes(size: int) -> dict[str, int]:
    """Return the lanes: what the worker, lease and probe need, the jobs too where there is room, the rest to users."""
    fixed = {**LANES, "jobs": LANES["jobs"] if size == SMALL else JOBS}
    return {**fixed, "user": size - sum(fixed.values())}


async def main(url: str, users: int, seconds: float) -> None:
    """Measure with 20 connections, then with the recommended number."""
    makes: dict[str, Callable[[int], Any]] = {
        "redis-py ConnectionPool": lambda size: redis.asyncio.ConnectionPool.from_url(url, max_connections=size),
        "redis-py Blocking...": lambda size: redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=size, timeout=20
        ),
        "headrace ConnectionPool": lambda size: ConnectionPool.from_url(
            url, max_connections=size, lanes=lanes(size), timeout=20
        ),
    }
    small = [await measure(name, url, SMALL, make, users, seconds) for name, make in makes.items()]
    show(f"{users} users, too few", small)
    # What was in use, and whoever waited beside it, rounded up to tens.
    ours = small[-1]
    size = -(-(SMALL + ours.waiting + JOBS) // 10) * 10
    large = [await measure(name, url, size, make, users, seconds) for name, make in makes.items()]
    show(f"{users} users, recommended", large)
    print(f"headrace, jobs lane and user lane full: probe p99 is {ratio(ours)} its unloaded value (at most 3 wanted)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--users", type=int, default=300)
    options = parser.parse_args()
    with server() as private:
        asyncio.run(main(private.url, options.users, options.seconds))
