"""Run an app whose redis-py clients want as many connections as there are users, until the standard input ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import redis.asyncio

from headrace import Headrace


async def main(users: int) -> None:
    app = Headrace()
    async with app:
        client = redis.asyncio.Redis(connection_pool=app.pool)
        stopped = False

        async def call() -> None:
            while not stopped:
                await client.blpop("nothing", 0.05)

        tasks = [asyncio.create_task(call()) for _ in range(users)]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        sys.stdout.write(json.dumps({"maximum": app.pool.stats().maximum}) + "\n")
        stopped = True
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


asyncio.run(main(int(sys.argv[1])))
