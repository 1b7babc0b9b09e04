"""Where the demonstration takes place: a server, a key prefix and a folder of its own, of which nothing is left."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.demo.app import app
from headrace.ids import random_name
from headrace.server import ensure_server
from headrace.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headrace.server import ServerUse

#: Lease of the workers in seconds: short, so that the recovery is seen.
LEASE: Final = 2.0
#: Slots of a worker.
SLOTS: Final = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where to run.

    Attributes:
        folder: For the output of the workers.
        environment: What the workers must know.
        own_server: Whether the server was started for this demonstration alone.
    """

    folder: Path
    environment: dict[str, str]
    own_server: bool


@asynccontextmanager
async def open_place(jobs: int) -> AsyncGenerator[Place, None]:
    """Find or start the server, and set the app up for it.

    Args:
        jobs: How many file jobs there will be; the results of all are kept.

    Raises:
        SettingError: A setting is malformed.
        ServerStartFailed: The default server could not be started.
        ServerTooOld: The server program on PATH is too old.
    """
    before = app.settings
    settings = load_settings()
    folder = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    use: ServerUse | None = None
    try:
        url = settings.redis_url
        if url is None:
            use = await _start_server(folder / "data")
            url = use.url
        kept = max(settings.keep_finished_count, 2 * jobs)
        app.settings = settings.override(
            {"redis_url": url, "prefix": f"headrace-demo-{random_name(8)}", "lease": LEASE, "keep_finished_count": kept}
        )
        environment = {
            "REDIS_URL": url,
            "HEADRACE_PREFIX": app.settings.prefix,
            "QUEUE_STALLED_INTERVAL": str(round(LEASE * 1000)),
            "QUEUE_CONCURRENCY": str(SLOTS),
            "HEADRACE_KEEP_FINISHED_COUNT": str(kept),
        }
        yield Place(folder, environment, own_server=use is not None)
    finally:
        app.settings = before
        if use is not None:
            await asyncio.to_thread(use.release_and_wait)
        shutil.rmtree(folder, ignore_errors=True)


async def _start_server(folder: Path) -> ServerUse:
    start = asyncio.ensure_future(asyncio.to_thread(ensure_server, folder, linger=0.0))
    try:
        return await asyncio.shield(start)
    except asyncio.CancelledError:
        # Why: the thread goes on; the server that it starts is released, or it would hold the folder.
        (await start).release_and_wait()
        raise
