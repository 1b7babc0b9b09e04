"""Open an app without tasks for one command: what looks at queues and jobs needs no code of the user."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from headrace.app import Headrace

T = TypeVar("T")

#: Annotation of the option `--url`.
UrlOption = Annotated[
    str | None, typer.Option("--url", help="Server; else REDIS_URL, else the default server of this folder.")
]


def with_app(
    url: str | None, work: Callable[[Headrace], Coroutine[Any, Any, T]], *, patience: float | None = None
) -> T:
    """Open an app, do one piece of work with it, and close it.

    Args:
        url: Server; None takes it from the settings.
        work: Called with the open app.
        patience: Longest wait for the server in seconds; None takes it from the settings.

    Raises:
        HeadraceError: The server could not be reached, or the work failed.
    """
    from headrace.app import Headrace
    from headrace.errors import SettingError
    from headrace.sizing.onlooker import few_connections, is_too_few

    async def run() -> T:
        app = Headrace(url, settings={"redis_acquire_timeout": patience})
        configured = app.settings
        # Why: the least is never refused, so that a fleet which does not fit its server can be looked at.
        app.settings = few_connections(configured, 4)
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(app)
            except SettingError as error:
                if not is_too_few(error, configured, app.settings):
                    raise
                app.settings = configured
                await stack.enter_async_context(app)
            return await work(app)

    return asyncio.run(run())
