"""An app for tests of `headrace worker`, whose tasks tell what they do through lists of the same server."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import redis.asyncio

from headrace import Headrace, current_job, resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = Headrace()
not_an_app = 42


def key(name: str) -> str:
    """Return the name of a list or a hash beside the queues of the app."""
    return f"{app.settings.prefix}-shop:{name}"


def client() -> redis.asyncio.Redis:
    """Return a client of the app's server."""
    # A call that waits for a word may wait for longer than the 5 s after which redis-py would give it up.
    return redis.asyncio.Redis.from_url(app.settings.redis_url or "", decode_responses=True, socket_timeout=None)


def line(word: str) -> str:
    """Write what is told of the job that runs: word, process, job, time."""
    return f"{word} {os.getpid()} {current_job().id} {time.time()}"


@app.lifespan
async def resources() -> AsyncIterator[dict[str, Any]]:
    """Give all tasks of a worker one client."""
    async with client() as server:
        yield {"server": server}
    if "SHOP_HANGS" in os.environ:
        await asyncio.Event().wait()


@app.task(queue="mail", keep_result=60)
async def add(one: int, two: int) -> int:
    """End at once."""
    return one + two


@app.task(queue="mail")
async def count(server: redis.asyncio.Redis = resource()) -> None:
    """Count the runs of this job."""
    await server.hincrby(key("runs"), current_job().id, 1)
    await server.rpush(key("counted"), "1")


@app.task(queue="mail", attempts=2)
async def held(gate: str, server: redis.asyncio.Redis = resource()) -> None:
    """Wait until something is in the list that `gate` names."""
    await server.rpush(key("told"), line("began"))
    await server.blpop([key(gate)], timeout=0)
    await server.rpush(key("told"), line("ended"))


@app.task(queue="bulk")
async def crowd(seconds: float, server: redis.asyncio.Redis = resource()) -> None:
    """Keep the highest number of these that ran at once."""
    now = await server.incr(key("running"))
    await server.zadd(key("highest"), {"all": now}, gt=True)
    await asyncio.sleep(seconds)
    await server.decr(key("running"))


@app.task(queue="mail", keep_result=60)
async def loop_module() -> str:
    """Name the module of the event loop."""
    return type(asyncio.get_running_loop()).__module__
