"""Time limits of waits, any number of them on one alarm of the clock instead of a timer each.

`async with deadlines.within(30.0):` does what `asyncio.timeout(30.0)` does. A process that waits in many places at
once, as a worker does that blocks on every slot of a cluster, has one timer for all of that all the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headrace.errors import UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from headrace.clock import Clock


class Deadlines:
    """Make limits that one alarm watches.

    Args:
        clock: Its alarm rings for the nearest limit. Before it starts and after it closes, limits have timers of their
            own.
        name: What the alarm does.
        owner: The part that it belongs to.
    """

    def __init__(self, clock: Clock, name: str, owner: str) -> None:
        self._clock = clock
        self._alarm = clock.alarm(name, self._due, owner=owner)
        # Bounded by the waits under way; each leaves with its block.
        self._limits: dict[Limit, None] = {}

    def within(self, seconds: float) -> Limit | asyncio.Timeout:
        """Return a block that ends after so many seconds at the latest, with TimeoutError."""
        if not self._clock.is_running:
            return asyncio.timeout(seconds)
        return Limit(self, seconds)

    def add(self, limit: Limit, seconds: float) -> float:
        """Watch a limit; returns when it is over."""
        when = self._clock.now() + seconds
        self._limits[limit] = None
        nearest = self._alarm.when
        if nearest is None or when < nearest:
            self._alarm.set(when)
        return when

    def remove(self, limit: Limit) -> None:
        """Watch it no more; the alarm stays as it is, which costs less than to set it anew."""
        self._limits.pop(limit, None)

    def _due(self) -> None:
        now = self._clock.now()
        for limit in [limit for limit in self._limits if limit.when <= now]:
            del self._limits[limit]
            limit.expire()
        self._alarm.set(min((limit.when for limit in self._limits), default=None))


class Limit:
    """One block with a limit; made by `Deadlines.within`, and entered once."""

    __slots__ = ("_cancelling", "_deadlines", "_seconds", "_task", "expired", "when")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.expired = False
        self.when = 0.0

    def expire(self) -> None:
        """End the block, since its time is over."""
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> None:
        """Begin the block."""
        self._task = asyncio.current_task()
        if self._task is None:
            raise UsageError("a time limit needs a task to end. Use it inside a coroutine that runs as one.")
        self._cancelling = self._task.cancelling()
        self.when = self._deadlines.add(self, self._seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block; raises TimeoutError when its time was over, unless it was cancelled for another reason too."""
        self._deadlines.remove(self)
        task = self._task
        if not self.expired or task is None or task.uncancel() > self._cancelling:
            return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error
