"""The worker processes of the demonstration: start them, kill one, end them all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Seconds that a worker gets to end when it is told to.
STOP_TIMEOUT: Final = 5.0


@dataclass(slots=True)
class Hand:
    """One worker process; `state` is what the display says of it."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    state: str = "starts"
    worker_id: str = ""
    expected: bool = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.returncode is None


class Crew:
    """Start and end worker processes.

    Args:
        environment: Variables for the workers, beside those of this process.
        folder: Where their output goes.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.hands: list[Hand] = []
        self._environment = {**os.environ, **environment, "PYTHONWARNINGS": "ignore"}
        self._folder = folder
        self._ends: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] | None = None

    async def start(self) -> Hand:
        """Start one more worker; it may not reserve jobs yet.

        Its standard input is a pipe of this process, so that it ends with it in whatever way that ends; and it is in a
        session of its own, so that Ctrl-C reaches it only through this process.
        """
        name = f"worker {len(self.hands) + 1}"
        log = self._folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headrace.demo.work",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
                env=self._environment, start_new_session=True,
            )  # fmt: skip
        hand = Hand(name, process, log)
        self.hands.append(hand)
        end = asyncio.get_running_loop().create_task(self._watch(hand), name=f"watch {name}")
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        return hand

    async def ready(self, hand: Hand) -> None:
        """Wait until a worker reserves jobs; one that ends instead is reported by `broken`."""
        assert hand.process.stdout is not None  # noqa: S101 - a pipe
        hand.worker_id = (await hand.process.stdout.readline()).decode().strip()
        hand.state = "runs jobs" if hand.worker_id else "ended"

    async def broken(self) -> None:
        """Wait until a worker ends that should not.

        Raises:
            HeadraceError: One did; the error holds the end of its output.
        """
        self._broken = asyncio.get_running_loop().create_future()
        await self._broken

    async def kill(self, hand: Hand) -> None:
        """End a worker with SIGKILL, and wait until it is gone."""
        hand.expected = True
        hand.process.kill()
        await hand.process.wait()

    async def stop(self) -> None:
        """End all workers: they are told to, and killed when they do not obey in time."""
        for hand in self.hands:
            hand.expected = True
            if hand.alive:
                hand.state = "ended"
                hand.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await asyncio.gather(*(hand.process.wait() for hand in self.hands))
        except TimeoutError:
            pass
        finally:
            for hand in self.hands:
                if hand.alive:
                    hand.process.kill()
        await asyncio.gather(*(hand.process.wait() for hand in self.hands), *self._ends)

    async def _watch(self, hand: Hand) -> None:
        code = await hand.process.wait()
        if hand.expected or self._broken is None or self._broken.done():
            return
        text = f"{hand.name} (pid {hand.pid}) ended by itself with code {code}. Its output ends with:\n"
        tail = hand.log.read_text(errors="replace")[-2_000:].strip()
        self._broken.set_exception(HeadraceError(text + (tail or "(nothing)")))
