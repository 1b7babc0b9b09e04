"""Measure what it costs to acquire and release a connection, beside redis-py's BlockingConnectionPool in the same run.

    python benchmarks/pool_acquire.py [--rounds 20000] [--repeats 5]

Uncontended: one caller takes and gives back an open connection. Waiting: 1,000 coroutines, or 64 threads, share 20
connections, and each takes one, lets the others run and gives it back, again and again. The two pools take turns, so
that what else the machine does falls on both; the ratio is of the medians, above 1 where ours is faster.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from kit import server, spread

import headrace.pool
import headrace.pool.sync

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 20
COROUTINES = 1_000
THREADS = 64
#: Times that each waiting caller takes a connection.
TURNS = 10


def threaded_alone(pool: Any, rounds: int) -> float:
    pool.release(pool.get_connection())
    began = time.perf_counter()
    for _ in range(rounds):
        pool.release(pool.get_connection())
    return rounds / (time.perf_counter() - began)


def threaded_waiting(pool: Any, _rounds: int) -> float:
    def borrow() -> None:
        for _ in range(TURNS * 5):
            connection = pool.get_connection()
            time.sleep(0)
            pool.release(connection)

    # Every connection is open before the clock runs.
    for connection in [pool.get_connection() for _ in range(CONNECTIONS)]:
        pool.release(connection)
    threads = [threading.Thread(target=borrow) for _ in range(THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return THREADS * TURNS * 5 / (time.perf_counter() - began)


async def async_alone(pool: Any, rounds: int) -> float:
    await pool.release(await pool.get_connection())
    began = time.perf_counter()
    for _ in range(rounds):
        await pool.release(await pool.get_connection())
    return rounds / (time.perf_counter() - began)


async def async_waiting(pool: Any, _rounds: int) -> float:
    async def borrow() -> None:
        for _ in range(TURNS):
            connection = await pool.get_connection()
            await asyncio.sleep(0)
            await pool.release(connection)

    for connection in [await pool.get_connection() for _ in range(CONNECTIONS)]:
        await pool.release(connection)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(COROUTINES):
            group.create_task(borrow())
    return COROUTINES * TURNS / (time.perf_counter() - began)


def on_threads(measure: Callable[[Any, int], float], url: str, rounds: int) -> tuple[float, float]:
    figures = []
    for pool_class in (redis.BlockingConnectionPool, headrace.pool.sync.ConnectionPool):
        pool = pool_class.from_url(url, max_connections=CONNECTIONS, timeout=60)
        figures.append(measure(pool, rounds))
        pool.close()
    return figures[0], figures[1]


def on_loop(measure: Callable[[Any, int], Any], url: str, rounds: int) -> tuple[float, float]:
    async def run(pool_class: Any) -> float:
        pool = pool_class.from_url(url, max_connections=CONNECTIONS, timeout=60)
        figure: float = await measure(pool, rounds)
        await pool.aclose()
        return figure

    theirs = asyncio.run(run(redis.asyncio.BlockingConnectionPool))
    return theirs, asyncio.run(run(headrace.pool.ConnectionPool))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    parts: dict[str, Callable[[str], tuple[float, float]]] = {
        "threads, uncontended": lambda url: on_threads(threaded_alone, url, arguments.rounds),
        f"threads, {THREADS} waiting": lambda url: on_threads(threaded_waiting, url, arguments.rounds),
        "asyncio, uncontended": lambda url: on_loop(async_alone, url, arguments.rounds),
        f"asyncio, {COROUTINES:,} waiting": lambda url: on_loop(async_waiting, url, arguments.rounds),
    }
    with server() as private:
        print(f"redis-py {redis.__version__}; acquire and release a second, median of {arguments.repeats} (extremes)")
        for name, measure in parts.items():
            pairs = [measure(private.url) for _ in range(arguments.repeats)]
            theirs, ours = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            ratio = statistics.median(ours) / statistics.median(theirs)
            print(f"{name:<24} redis-py {spread(theirs):<28} headrace {spread(ours):<28} ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
