"""Measure what the pool's own figures cost: CPU time of a GET with them, and with their recording taken out.

    python benchmarks/pool_figures.py [--seconds 1] [--repeats 15]

The variants take turns in one process, so that what else the machine does falls on all of them. `without figures` has
no histograms and no highest-waiting; `without places` does not look up who took a connection either. CPU time of this
process is measured, which is its throughput when the core is the limit, and which others on the machine disturb less;
the last line times the recording alone, without that noise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from typing import TYPE_CHECKING
from unittest import mock

import redis.asyncio
from kit import server, spread

from headrace.histogram import Histogram, RecentMaximum
from headrace.pool import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECTIONS = 20
USERS = 40

WITHOUT_FIGURES = {
    "headrace.histogram.Histogram.record": lambda _self, _seconds: None,
    "headrace.histogram.RecentMaximum.record": lambda _self, _value, _now: None,
}
WITHOUT_PLACES = {**WITHOUT_FIGURES, "headrace.pool.client_pool.find_place": lambda: None}
VARIANTS = {"as shipped": {}, "without figures": WITHOUT_FIGURES, "without places": WITHOUT_PLACES}


@contextlib.contextmanager
def replaced(parts: Mapping[str, object]) -> Iterator[None]:
    """Replace parts of the pool for a while."""
    with contextlib.ExitStack() as stack:
        for name, part in parts.items():
            stack.enter_context(mock.patch(name, part))
        yield


async def gets(client: redis.asyncio.Redis, seconds: float) -> float:
    """Return the CPU time of a GET through one client that some users share, in microseconds."""
    count = 0
    until = time.perf_counter() + seconds

    async def user() -> None:
        nonlocal count
        while time.perf_counter() < until:
            await client.get("key")
            count += 1

    began = time.process_time()
    await asyncio.gather(*(user() for _ in range(USERS)))
    return (time.process_time() - began) / count * 1e6


def time_of_recording(rounds: int = 200_000) -> float:
    """Return what the figures of one GET that had to wait cost by themselves, in microseconds."""
    waits, responses, lane, pool = Histogram(), Histogram(), RecentMaximum(), RecentMaximum()
    began = time.process_time()
    for number in range(rounds):
        waits.record(0.001)
        responses.record(0.0005)
        for highest in (lane, pool):
            if number % 20 > highest.last or number / 1e6 >= highest.until:
                highest.record(number % 20, number / 1e6)
    return (time.process_time() - began) / rounds * 1e6


async def main(url: str, seconds: float, repeats: int) -> None:
    """Let the variants take turns and print the ratio of their medians."""
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    async with ConnectionPool.from_url(url, max_connections=CONNECTIONS) as pool:
        client = redis.asyncio.Redis(connection_pool=pool)
        await gets(client, seconds)
        for turn in range(repeats):
            # Each variant goes first in turn.
            names = list(VARIANTS)[turn % len(VARIANTS) :] + list(VARIANTS)[: turn % len(VARIANTS)]
            for name in names:
                with replaced(VARIANTS[name]):
                    rates[name].append(await gets(client, seconds))
    shipped = statistics.median(rates["as shipped"])
    print(f"{USERS} users on {CONNECTIONS} connections, CPU time of a GET in us, median of {repeats} (extremes)")
    for name, found in rates.items():
        cost = (shipped / statistics.median(found) - 1) * 100
        print(
            f"{name:<18} {spread(found, digits=1):<28}"
            + (f"shipped costs {cost:+.1f} % more" if found is not rates["as shipped"] else "")
        )
    alone = statistics.median(time_of_recording() for _ in range(5))
    print(f"recorded by themselves: {alone:.2f} us for each GET, {alone / shipped * 100:.1f} % of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with server() as private:
        asyncio.run(main(private.url, options.seconds, options.repeats))
