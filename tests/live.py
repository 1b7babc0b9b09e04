"""An open app on a private server, and workers beside it, for tests of what users see."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from headrace import Headrace
from headrace.ids import random_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from headrace.worker.worker import Worker

#: Nothing in these tests takes longer, seconds.
DEADLINE = 15.0


def fresh_app(url: str, **settings: Any) -> Headrace:
    """Return an app that shares no key with any other test."""
    return Headrace(url, settings={"prefix": f"t-{random_name(8)}", **settings})


def sibling(app: Headrace, **settings: Any) -> Headrace:
    """Return another app on the same server and keys, as another process would have it."""
    return Headrace(app.settings.redis_url, settings={"prefix": app.settings.prefix, **settings})


@contextlib.asynccontextmanager
async def opened(app: Headrace) -> AsyncIterator[Headrace]:
    """Open an app, close it, and find its census empty."""
    async with app:
        yield app
    assert app.census() == []


@contextlib.asynccontextmanager
async def working(
    app: Headrace, queues: Sequence[str] | None = None, concurrency: int = 4, **options: Any
) -> AsyncIterator[Worker]:
    """Run a worker beside the block; at the end it stops and must have let go of everything."""
    worker = app.worker(queues, concurrency, **options)
    running = asyncio.create_task(worker.run())
    started = asyncio.create_task(worker.signals.started.wait())
    await asyncio.wait({running, started}, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        assert worker.signals.started.is_set(), "the worker did not start"
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(running, DEADLINE)


async def work_off(app: Headrace, queues: Sequence[str] | None = None, concurrency: int = 4) -> None:
    """Run a worker until no job of its queues is left that is due."""
    await asyncio.wait_for(app.worker(queues, concurrency, burst=True).run(), DEADLINE)


async def until(probe: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again until the answer is yes: for what only the server knows and tells nobody."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE
    while not await probe():
        assert loop.time() < deadline, f"did not happen in time: {what}"
        await asyncio.sleep(0.005)
