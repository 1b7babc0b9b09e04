"""Apps with one sickness each, as users have them: a middleware or a lifespan that does what it should not."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

from headrace import Headrace

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

#: Bytes that the leak keeps of each job.
LEAK_BYTES = 40_000
#: Timers of the polling app: the incident had 50 and more.
POLLERS = 50
#: The job with this number is blocked for so long, seconds.
BLOCKED_JOB = 1_000
BLOCKED_SECONDS = 0.8

healthy = Headrace()
leaking = Headrace()
hoarding = Headrace()
blocking = Headrace()
neglected = Headrace()
dying = Headrace()
writing = Headrace()


class Leak:
    """Keep a buffer of each job for ever."""

    def __init__(self) -> None:
        self.buffers: list[bytearray] = []

    async def after(self, _job: Any, *_: Any) -> None:
        self.buffers.append(bytearray(b"x" * LEAK_BYTES))


class History:
    """Keep a few words about each job for ever, as the incident's monitoring did."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    async def after(self, job: Any, *_: Any) -> None:
        self.entries.append({"id": job.id, "task": job.task, "at": time.time(), "attempt": job.attempt})


@neglected.lifespan
async def pollers() -> AsyncGenerator[dict[str, object], None]:
    """Run a polling timer for each of many things."""

    async def poll() -> None:
        while True:  # noqa: ASYNC110 - that it polls is what it is for
            await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(poll()) for _ in range(POLLERS)]
    yield {}
    for task in tasks:
        task.cancel()


class Block:
    """Sleep in the loop, once."""

    def __init__(self) -> None:
        self.jobs = 0

    async def before(self, _job: Any) -> None:
        self.jobs += 1
        if self.jobs == BLOCKED_JOB:
            time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251 - that it blocks is what it is for


class Fail:
    """Fail each tenth job once."""

    def __init__(self) -> None:
        self.jobs = 0

    async def before(self, job: Any) -> None:
        self.jobs += 1
        if self.jobs % 10 == 0 and job.attempt == 1:
            raise RuntimeError("the database is locked")


@neglected.lifespan
async def thread_left() -> AsyncGenerator[dict[str, object], None]:
    """Start a thread and forget it."""
    threading.Thread(target=time.sleep, args=(30.0,), name="forgotten", daemon=True).start()
    yield {}


class Die:
    """End the whole process in a job, as a crash of an extension module does."""

    def __init__(self) -> None:
        self.jobs = 0

    async def before(self, _job: Any) -> None:
        self.jobs += 1
        if self.jobs == BLOCKED_JOB:
            os._exit(7)


class Write:
    """Write about each job to the server, and take nothing back."""

    def __init__(self) -> None:
        self.client: Any = None

    async def after(self, job: Any, *_: Any) -> None:
        if self.client is None:
            self.client = Redis(connection_pool=writing.pool)
        await self.client.rpush(f"{writing.settings.prefix}:audit", job.id + "x" * 200)
        await self.client.set(f"seen:{job.id}", job.task)


leaking.middleware(Leak())
hoarding.middleware(History())
blocking.middleware(Block())
neglected.middleware(Fail())
dying.middleware(Die())
writing.middleware(Write())
