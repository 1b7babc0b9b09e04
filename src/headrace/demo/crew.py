"""The worker processes of the demonstration: start them, see that they run, end them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from headrace.errors import HeadraceError
from headrace.verify.hands import Hand as Process
from headrace.verify.hands import end_hands, start_hand

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Seconds that a worker gets to end when it is told to.
STOP_TIMEOUT: Final = 5.0


class Hand(Process):
    """One worker process; `state` is what the display says of it."""

    state = "starts"


class Crew:
    """Start and end worker processes.

    Args:
        environment: Variables for the workers, beside those of this process.
        folder: Where their output goes.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.hands: list[Hand] = []
        self._environment = environment
        self._folder = folder
        self._ends: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] | None = None

    async def start(self) -> Hand:
        """Start one more worker; it may not reserve jobs yet."""
        name = f"worker {len(self.hands) + 1}"
        hand = await start_hand(Hand, name, "headrace.demo.work", self._folder, self._environment)
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

    async def stop(self) -> None:
        """End all workers: they are told to, and killed when they do not obey in time."""
        for hand in self.hands:
            hand.state = "ended" if hand.alive else hand.state
        await end_hands(self.hands, timeout=STOP_TIMEOUT)
        await asyncio.gather(*self._ends)

    async def _watch(self, hand: Hand) -> None:
        await hand.process.wait()
        if not hand.expected and self._broken is not None and not self._broken.done():
            self._broken.set_exception(HeadraceError(hand.describe_end()))
