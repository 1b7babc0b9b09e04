"""Use the connection pool alone, under redis-py's clients: bounded, in order, in lanes, and it says who holds what.

Prints::

    asyncio: 50 callers got their replies over 3 connections, 0 still wait
    the control lane answers while the user lane is full: True
    PoolTimeout is also redis.ConnectionError: True
    held by: checkout (cart)
    threads: 16 callers got their replies over 2 connections
"""

import asyncio
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis
import redis.asyncio

from headrace.errors import PoolTimeout
from headrace.pool import ConnectionPool
from headrace.pool.sync import ConnectionPool as ThreadPool
from headrace.server import start_private_server


async def in_coroutines(url: str) -> None:
    # What redis.asyncio.ConnectionPool takes, ours takes too; `async with` opens the minimum and closes all.
    async with ConnectionPool.from_url(url, max_connections=3, min_connections=1, timeout=5.0) as pool:
        client = redis.asyncio.Redis(connection_pool=pool)
        replies = await asyncio.gather(*(client.echo(f"hello {number}") for number in range(50)))
        stats = pool.stats()
        print(f"asyncio: {len(replies)} callers got their replies over {stats.total} connections, ", end="")
        print(f"{stats.waiting} still wait")


async def in_lanes(url: str) -> None:
    shares = {"control": 1, "user": 2}
    async with ConnectionPool.from_url(url, max_connections=3, lanes=shares, timeout=0.1) as pool:
        users = pool.lane("user", owner="checkout", purpose="cart")
        held = [await users.get_connection() for _ in range(2)]
        probe = redis.asyncio.Redis(connection_pool=pool.lane("control"))
        print(f"the control lane answers while the user lane is full: {await probe.ping()}")
        try:
            await redis.asyncio.Redis(connection_pool=users).ping()
        except PoolTimeout as error:
            print(f"PoolTimeout is also redis.ConnectionError: {isinstance(error, redis.ConnectionError)}")
            # The text of the error and `error.holders` say it too, with the line that took it and for how long.
            print(f"held by: {pool.holders()[0].owner} ({pool.holders()[0].purpose})")
        for connection in held:
            await users.release(connection)


def in_threads(url: str) -> None:
    with ThreadPool.from_url(url, max_connections=2, timeout=5.0) as pool, ThreadPoolExecutor(16) as threads:
        client = redis.Redis(connection_pool=pool)
        replies = list(threads.map(client.echo, range(16)))
        print(f"threads: {len(replies)} callers got their replies over {pool.stats().total} connections")


def main(url: str) -> None:
    asyncio.run(in_coroutines(url))
    asyncio.run(in_lanes(url))
    in_threads(url)


def find_server() -> None:
    if "REDIS_URL" in os.environ:
        main(os.environ["REDIS_URL"])
    else:
        with tempfile.TemporaryDirectory() as folder, start_private_server(Path(folder)) as server:
            main(server.url)


if __name__ == "__main__":
    find_server()
