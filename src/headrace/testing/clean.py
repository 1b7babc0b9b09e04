"""Point an app at a clean server of its own for one test."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.errors import UsageError
from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command
from headrace.server import start_private_server

if TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.server import PrivateServer
    from headrace.settings import Settings

#: Nothing of a test is written to the disk.
IN_MEMORY: Final = ("--appendonly", "no", "--save", "")


class Connected:
    """An app on a clean private server; made by `connected`."""

    def __init__(self, app: Headrace, server: PrivateServer | None) -> None:
        self._app = app
        self._server = server
        self._settings: Settings | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Headrace:
        """Point the app at the server, which holds nothing; whoever uses the app opens it.

        Raises:
            UsageError: The app is open already, or the server was stopped.
            ServerStartFailed: There is no server program, or it did not start.
        """
        app = self._app
        if app._opened or self._settings is not None:  # noqa: SLF001 - the test kit looks at the app from inside
            raise UsageError("The app is open, or connected to a test's server already. Close it, then connect it.")
        app.close_sync()
        server = self._server
        if server is None:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-"))
            server = self._stack.enter_context(start_private_server(Path(folder), extra=IN_MEMORY))
        _empty(server)
        self._settings = app.settings
        app.settings = app.settings.override({"redis_url": server.url})
        return app

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Give the app back its own settings.

        Raises:
            UsageError: The app was opened inside and not closed.
        """
        app, opened = self._app, self._app._opened  # noqa: SLF001 - as above
        app.close_sync()
        if self._settings is not None:
            app.settings, self._settings = self._settings, None
        self._stack.close()
        if kind is None and opened:
            raise UsageError("The app was opened inside `connected(app)` and is open still. Close it inside as well.")

    async def __aenter__(self) -> Headrace:
        """Point the app at the server and open it."""
        await asyncio.to_thread(self.__enter__)
        try:
            return await self._app.__aenter__()
        except BaseException:
            self.__exit__(UsageError)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Close the app, and give it back its own settings."""
        try:
            await self._app.__aexit__(kind, *exc)
        finally:
            await asyncio.to_thread(self.__exit__, kind, *exc)


def connected(app: Headrace, server: PrivateServer | None = None) -> Connected:
    """Point an app at a clean private server for one test; nothing in the code under test has to change.

    Args:
        app: The app; it must not be open. Whatever its settings say, only the private server is used.
        server: A private server, which is emptied first, as the fixture `headrace_server` gives it; None starts one for
            this block alone.

    Returns:
        The block: `async with` also opens the app, `with` leaves that to the code under test, such as a web framework.

    Example:
        >>> import asyncio
        >>> from headrace import Headrace
        >>> from headrace.testing import connected, run_until_idle
        >>> app = Headrace("redis://production.example:6379/0")
        >>> @app.task
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> async def test() -> None:
        ...     async with connected(app):
        ...         job = await double.enqueue(21)
        ...         await run_until_idle(app)
        ...         print(await job.result())
        >>> asyncio.run(test())
        42
    """
    return Connected(app, server)


def _empty(server: PrivateServer) -> None:
    if not server.running:
        raise UsageError(f"the private server of {server.folder.path} was stopped. Call its restart() first.")
    link = SyncLink(parse_address(server.url), name="headrace.testing")
    try:
        link.roundtrip(pack_command("FLUSHALL"), 1, timeout=5.0)
    finally:
        link.close()
