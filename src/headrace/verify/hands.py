"""Worker processes of a command that shows or tries something: started as a user's are, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

H = TypeVar("H", bound="Hand")

#: Lines and characters of the end of a log that an error quotes.
TAIL_LINES: Final = 12
TAIL: Final = 2_000
#: Most bytes of one line that a process writes to its standard output.
ANSWER_LIMIT: Final = 8 * 2**20


class Hand:
    """One worker process.

    Args:
        name: What people call it.
        process: The process; its standard input and output are pipes.
        log: File that its standard error goes to.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.worker_id = ""
        #: It was told to end, or was ended.
        self.expected = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.returncode is None

    async def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        self.expected = True
        self.process.kill()
        await self.process.wait()

    def describe_end(self) -> str:
        """Say how it ended, with the end of its output."""
        return f"{self.name} (pid {self.pid}) ended by itself with code {self.process.returncode}.{self.tail()}"

    def tail(self) -> str:
        """Return the end of its log as a part of a message."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        tail = "\n".join(lines[-TAIL_LINES:]).strip()[-TAIL:]
        return f" Its output ends with:\n{tail}" if tail else " It wrote nothing."


async def start_hand(
    kind: type[H], name: str, module: str, folder: Path, environment: Mapping[str, str], *, files: Sequence[int] = ()
) -> H:
    """Start a worker process; it may not reserve jobs yet.

    Its standard input is a pipe of this process, so that it ends with it in whatever way that ends; and it is in a
    session of its own, so that Ctrl-C reaches it only through this process.

    Args:
        kind: Class of the result.
        name: What people call it; its log is named after it.
        module: What it runs.
        folder: Where its log goes.
        environment: Variables for it, beside those of this process.
        files: Open files that it inherits.
    """
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, limit=ANSWER_LIMIT,
            env={**os.environ, **environment, "PYTHONWARNINGS": "ignore"}, start_new_session=True, pass_fds=files,
        )  # fmt: skip
    return kind(name, process, log)


async def end_hands(hands: Sequence[Hand], *, timeout: float) -> None:
    """End all: they are told to, and killed when they do not obey in time or the wait is cancelled.

    Args:
        hands: Processes, some of which may have ended.
        timeout: How long they get, seconds.
    """
    for hand in hands:
        hand.expected = True
        if hand.alive:
            # Why: a paused one hears nothing.
            hand.process.send_signal(signal.SIGCONT)
            hand.process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(hand.process.wait() for hand in hands))
    except TimeoutError:
        pass
    finally:
        for hand in hands:
            if hand.alive:
                hand.process.kill()
    await asyncio.gather(*(hand.process.wait() for hand in hands))
