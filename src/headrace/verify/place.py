"""Where a verification takes place: the user's server or one of its own, a key prefix and a folder, all left clean."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.app import Headrace
from headrace.census import Census
from headrace.errors import ServerError
from headrace.ids import random_name
from headrace.server import start_private_server
from headrace.settings import SETTINGS, load_settings, source_of
from headrace.sizing.onlooker import few_connections
from headrace.verify.doctor import open_small, with_fleet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from headrace.server import PrivateServer
    from headrace.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """Where to run.

    Attributes:
        url: Address of the server.
        prefix: Start of all keys of this run.
        folder: For the logs of the workers.
        settings: What the user configured, the fleet's settings counted in.
        server: The server, if it was started for this run alone.
        clustered: Whether it is a cluster, whose nodes need more connections than one server.
        census: Where what outlives a call is entered.
    """

    url: str
    prefix: str
    folder: Path
    settings: Settings
    server: PrivateServer | None
    census: Census
    clustered: bool = False

    def environment(self) -> dict[str, str]:
        """Return the settings of the fleet as variables, since workers look for them below their own prefix."""
        return {
            setting.variable: setting.write(getattr(self.settings, setting.field))
            for setting in SETTINGS
            if source_of(self.settings, setting) == "fleet"
        }

    def app(self, **overrides: Any) -> Headrace:
        """Return an app of this process with few connections, below the prefix of this run."""
        own = {"redis_url": self.url, "prefix": self.prefix, **overrides}
        settings = self.settings.override(own)
        return Headrace(settings=settings if self.clustered else few_connections(settings, 8))


@asynccontextmanager
async def open_place(url: str | None, census: Census) -> AsyncGenerator[Place, None]:
    """Find the server, or start one; afterwards the folder and the server that was started are gone.

    Args:
        url: Server; None takes it from the settings.
        census: Where what is started is entered.

    Raises:
        SettingError: A setting is malformed.
        ServerStartFailed: The server could not be started.
        ServerTooOld: The server program on PATH is too old.
    """
    settings = load_settings({"redis_url": url})
    folder = Path(tempfile.mkdtemp(prefix="headrace-verify-"))
    server: PrivateServer | None = None
    try:
        where = settings.redis_url
        if where is None:
            server = await census.in_thread(
                start_private_server, folder / "server", name="start the server", owner="verify"
            )
            where = server.url
        completed, clustered = await _complete(settings, where)
        yield Place(where, _own_prefix(completed.prefix), folder, completed, server, census, clustered)
    finally:
        if server is not None:
            await census.in_thread(server.stop, name="stop the server", owner="verify")
        shutil.rmtree(folder, ignore_errors=True)


def _own_prefix(prefix: str) -> str:
    """Return a prefix below the user's, so that a user of the server who may use those keys may use these."""
    # Room is left for what the drill appends; a prefix has at most 64 characters.
    return f"{prefix[:40]}:verify-{random_name(8)}"


async def _complete(settings: Settings, url: str) -> tuple[Settings, bool]:
    """Return the settings with those of the fleet, or alone while the server is away; and whether it is a cluster."""
    census = Census()
    try:
        session = await open_small(settings.override({"redis_url": url}), census)
    except ServerError:
        return settings, False
    try:
        return await with_fleet(session, settings), session.store.clustered
    finally:
        await session.close()
