"""An open app on a private server, and workers beside it, for tests of what users see."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from headrace import Headrace
from headrace.errors import JobNotFound
from headrace.ids import random_name
from headrace.pool.link import Link
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from headrace import Job
    from headrace.pool.carrier import Carrier
    from headrace.worker.worker import Worker

#: Nothing in these tests takes longer, seconds.
DEADLINE = 15.0


def fresh_app(url: str, **settings: Any) -> Headrace:
    """Return an app on a server of the test alone."""
    return Headrace(url, settings={"prefix": f"t-{random_name(8)}", **settings})


def plain_link(carrier: Carrier) -> Link:
    """Return what carries to the server of a test as the link that it is, with its figures."""
    assert isinstance(carrier, Link)
    return carrier


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
    """Run a worker beside the block, which has asked for jobs once; at the end it stops."""
    worker = app.worker(queues, concurrency, **options)
    running = asyncio.create_task(worker.run())
    started = asyncio.create_task(worker.signals.reserved.wait())
    await asyncio.wait({running, started}, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        assert worker.signals.reserved.is_set(), "the worker did not ask for jobs"
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


def hold_replies(worker: Worker) -> tuple[asyncio.Event, asyncio.Event]:
    """Keep the next replies of the jobs lane back: one event tells that they are there, the other lets them go."""
    arrived, let_go = asyncio.Event(), asyncio.Event()
    link = worker._parts._jobs_link  # type: ignore[union-attr]  # it runs
    roundtrip = link.roundtrip

    async def held(payload: bytes, count: int, **options: Any) -> list[Any]:
        replies: list[Any] = await roundtrip(payload, count, **options)
        arrived.set()
        await let_go.wait()
        return replies

    link.roundtrip = held  # type: ignore[method-assign]  # the replies of this link are held back
    return arrived, let_go


class Gate:
    """A task body that tells when it runs and ends when it is let."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.runs: list[Any] = []

    async def pass_through(self, name: Any = None) -> None:
        self.runs.append(name)
        self.entered.set()
        await self.open.wait()


async def exists(job: Job[Any]) -> bool:
    """Tell whether anything is known of a job."""
    try:
        await job.refresh()
    except JobNotFound:
        return False
    return True


async def size_of(app: Headrace, name: str, queue: str = "default") -> int:
    """Return the number of entries of one key of a queue."""
    command = {"ghosts": "SCARD", "cancelled": "ZCARD"}.get(name, "HLEN")
    (reply,) = await app.control.roundtrip(pack_command(command, app.store.queue(queue).keys[name]), 1)
    return int(reply)


async def is_waited_for(app: Headrace, job: Job[Any]) -> bool:
    """Tell whether the server knows of somebody who waits for a job."""
    (reply,) = await app.control.roundtrip(
        pack_command("HEXISTS", app.store.queue(job.queue).keys["waiters"], job.id), 1
    )
    return bool(reply)


async def lose(app: Headrace, *, max_stalled: int) -> None:
    """Hold the jobs of the queue as a worker that is lost at once, and take them back."""
    store, calls = app.store, app.store.queue("default")
    await store.run(app.control, [store.pack_reserve(calls, "lost", 1, 1, 0)])

    async def reclaimed() -> bool:
        return any(page.worker for page in await store.reclaim(app.control, "default", max_stalled))

    await until(reclaimed, "the lease runs out")
