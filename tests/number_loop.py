"""A loop whose time is only a number, so that hours pass at once and every due time is exact."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

from headrace.census import Census
from headrace.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class NumberLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: its time jumps to the next timer."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.timers_set = 0
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                if timeout is None:
                    raise AssertionError("the loop waits for ever")
                loop.seconds += timeout
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.seconds

    # asyncio sets every timer through this method.
    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # It hands all on.
        self.timers_set += 1
        return super().call_at(*args, **kwargs)

    def block(self, seconds: float) -> None:
        """Let time pass as a callback does that does not return."""
        self.seconds += seconds


def run(main: Callable[[NumberLoop, Clock, Census], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a `NumberLoop` with a started clock, and check that it closes to an empty census."""

    async def frame() -> None:
        census = Census()
        clock = Clock(census)
        clock.start()
        await main(loop, clock, census)
        await clock.close()
        assert census.is_empty()

    loop = NumberLoop()
    try:
        loop.run_until_complete(frame())
    finally:
        loop.close()


def clock_timers(loop: NumberLoop) -> list[asyncio.TimerHandle]:
    """List the live timers of clocks that a loop holds."""
    scheduled: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]  # asyncio's own list.
    return [handle for handle in scheduled if not handle.cancelled() and "Clock._fire" in repr(handle)]
