"""What the safety checks need beside INFO: asked when somebody wants the checks, and kept for a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from headrace.errors import HeadraceError
from headrace.health.checks import PACKED_QUESTIONS, QUESTIONS, parse_answers

if TYPE_CHECKING:
    from headrace.census import Census
    from headrace.health.checks import SlowCommands
    from headrace.pool.carrier import Carrier

#: Answers are used for this long, seconds.
FRESH: Final = 30.0
#: The connection is given up as half-open when they take longer, seconds.
TIMEOUT: Final = 10.0


class Inquiry:
    """Ask once, at most one at a time, and keep the answers.

    Args:
        link: The control link of the app.
        census: Where the question under way is entered.

    Attributes:
        save: The server's `save` rules; None when it does not say.
        fsync: Its `appendfsync`; None when it does not say.
        slow: Slow commands; None when the log may not be read.
    """

    def __init__(self, link: Carrier, census: Census) -> None:
        self.save: str | None = None
        self.fsync: str | None = None
        self.slow: SlowCommands | None = None
        self._link = link
        self._census = census
        self._task: asyncio.Task[None] | None = None
        self._at: float | None = None

    def age(self, now: float) -> float | None:
        """Return the age of the answers in seconds; None when there are none."""
        return None if self._at is None else now - self._at

    async def ask(self, now: float, within: float) -> None:
        """Have answers that are fresh, or as they were when `within` seconds are over; raises nothing."""
        age = self.age(now)
        if age is not None and age < FRESH:
            return
        if self._task is None:
            self._task = self._census.create_task(
                self._ask(now), name="ask for safety checks", owner="health", expected=(HeadraceError,)
            )
        await asyncio.wait({self._task}, timeout=within)

    async def close(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self, now: float) -> None:
        try:
            answers = await self._link.roundtrip(PACKED_QUESTIONS, len(QUESTIONS), timeout=TIMEOUT)
            self.save, self.fsync, self.slow = parse_answers(answers)
            self._at = now
        finally:
            self._task = None
