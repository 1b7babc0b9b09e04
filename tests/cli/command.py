"""Run `headrace` in this process, and set up queues for it to look at."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.cli.commands import make_group

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

    from headrace import Headrace


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """Run commands against one server and prefix.

    Args:
        app: Whose server and prefix.
        capture: Takes what the command prints.
        environment: Sets the variables of the command.
    """

    def __init__(self, app: Headrace, capture: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> None:
        environment.setenv("HEADRACE_PREFIX", app.settings.prefix)
        self.url = app.settings.redis_url or ""
        self.capture = capture

    def __call__(self, *arguments: str) -> Done:
        """Run one command; `--url` is added."""
        self.capture.readouterr()
        code: int | str | None = 0
        try:
            make_group().main([*arguments, "--url", self.url], prog_name="headrace")
        except SystemExit as end:
            code = end.code
        out, err = self.capture.readouterr()
        return Done(int(code or 0), out, err)


def run_with(app: Headrace, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine inside the open app, from synchronous code."""

    async def run() -> Any:
        async with app:
            return await work()

    return asyncio.run(run())
