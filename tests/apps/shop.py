"""An app for tests of `headrace worker`: tasks that tell a Redis list what they do, and can be held back through it."""

from __future__ import annotations

import asyncio
import os
import time

import redis.asyncio

from headrace import Headrace, current_job

app = Headrace()


async def tell(word: str) -> None:
    """Append a word with the process and the attempt to the list `told`."""
    job = current_job()
    client = redis.asyncio.Redis.from_url(app.settings.redis_url or "")
    async with client:
        await client.rpush("told", f"{word} {os.getpid()} {job.attempt} {job.id}")


@app.task(queue="mail")
async def quick(number: int) -> int:
    """End at once."""
    return number


@app.task(queue="mail")
async def steady(seconds: float) -> None:
    """Wait a little."""
    await asyncio.sleep(seconds)


@app.task(queue="mail", attempts=2)
async def held(seconds: float) -> None:
    """Tell that it runs, wait, tell that it ended."""
    await tell("began")
    await asyncio.sleep(seconds)
    await tell("ended")


@app.task(queue="mail", attempts=1)
async def stubborn(seconds: float) -> None:
    """Wait, whoever cancels it."""
    await tell("began")
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            await asyncio.sleep(ends - time.monotonic())
        except asyncio.CancelledError:
            continue


@app.task(queue="bulk")
async def heavy(seconds: float) -> None:
    """Count itself among those that run at once, and keep the highest count."""
    client = redis.asyncio.Redis.from_url(app.settings.redis_url or "")
    async with client:
        now = await client.incr("running")
        highest = int(await client.get("highest") or 0)
        if now > highest:
            await client.set("highest", now)
        await asyncio.sleep(seconds)
        await client.decr("running")


not_an_app = 42
