"""Processes of one fleet, as far as their pools and sizers go, beside each other in this process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import redis.asyncio

from headrace.census import Census
from headrace.clock import Clock
from headrace.pool.client_pool import ConnectionPool
from headrace.pool.lanes import app_shares
from headrace.settings import Settings
from headrace.settings_auto import first_maximum
from headrace.sizing.auto import AutoOptions
from headrace.sizing.sizer import Sizer
from headrace.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace import Headrace
    from tests.support.raw import Raw

QUICK = AutoOptions(interval=0.1, target_wait=0.010, calm_windows=5, step=2, hold=0.5)


class Process:
    """A pool with its sizer, as an app has them, beside the others of one fleet in this process."""

    def __init__(self, app: Headrace, name: str, *, options: AutoOptions = QUICK, **settings: Any) -> None:
        self.settings = Settings(prefix=f"{app.settings.prefix}-fleet", sources=sources(settings), **settings)
        self.census = Census()
        self.clock = Clock(self.census)
        maximum = first_maximum(self.settings.redis_max_connections, self.settings.redis_min_connections)
        self.pool = ConnectionPool.from_url(
            app.settings.redis_url or "",
            max_connections=maximum,
            lanes=app_shares(maximum),
            census=self.census,
            clock=self.clock,
            client_name=f"headrace:fleet:{name}:user:lent",
            timeout=30.0,
        )
        self.client = redis.asyncio.Redis(connection_pool=self.pool)
        self.sizer = Sizer(
            self.pool, Store(self.settings.prefix, where="here"), app.control, self.clock,
            self.settings, "x", options=options, place=f"fleet:{name}",
        )  # fmt: skip

    async def start(self) -> Process:
        self.clock.start()
        # An app has a connection of its own before it asks for places.
        await self.client.ping()
        await self.sizer.start()
        return self

    async def close(self) -> None:
        await self.sizer.close()
        await self.clock.close()
        await self.pool.aclose()
        assert self.census.is_empty()


def sources(settings: dict[str, Any]) -> dict[str, Any]:
    """What a test names counts as set in the environment."""
    return dict.fromkeys(settings, "environment")


@contextlib.asynccontextmanager
async def processes(app: Headrace, *names: str, **settings: Any) -> AsyncIterator[list[Process]]:
    """Start processes one after the other, and close them at the end."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in names:
            process = Process(app, name, **settings)
            stack.push_async_callback(process.close)
            made.append(await process.start())
        yield made


@contextlib.contextmanager
def maxclients(raw: Raw, limit: int) -> Any:
    """Let the server accept only so many clients for a while."""
    before = int(raw("CONFIG", "GET", "maxclients")[b"maxclients"])
    raw("CONFIG", "SET", "maxclients", limit)
    try:
        yield
    finally:
        raw("CONFIG", "SET", "maxclients", before)


@contextlib.asynccontextmanager
async def load(process: Process, users: int, *, hold: float = 0.05) -> AsyncIterator[None]:
    """Let users call without a pause; each call holds its connection for some time on the server."""

    stopped = False

    async def call() -> None:
        while not stopped:
            await process.client.blpop("nothing", hold)

    tasks = [asyncio.create_task(call()) for _ in range(users)]
    try:
        yield
    finally:
        stopped = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
