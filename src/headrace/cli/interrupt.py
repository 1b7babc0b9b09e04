"""Run a long command so that Ctrl+C, SIGTERM and SIGHUP let it clean up, and end it as a shell expects."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

#: As a shell reports a command that SIGINT ended.
EXIT_INTERRUPTED: Final = 130


def run_interruptibly(work: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
    """Run a coroutine; Ctrl+C, SIGTERM and a terminal that goes cancel it, so that it can clean up.

    Args:
        work: Makes the coroutine.
        what: What is run, as the sentence names it of which nothing is left: `benchmark`.

    Raises:
        typer.Exit: It was interrupted.
    """

    async def run() -> T:
        # Why: asyncio.run turns SIGINT into a cancellation; the others shall clean up in the same way.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run makes one
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Why: nohup has a command ignore SIGHUP, and it goes on.
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await work()

    try:
        return asyncio.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        typer.echo(f"Interrupted. No process, key or file of the {what} is left.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error
