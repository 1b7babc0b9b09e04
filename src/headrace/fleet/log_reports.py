"""Let the counts of folded log lines be reported on time, also when no other line follows: by an alarm of the clock."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from headrace.logs import find_handler

if TYPE_CHECKING:
    from headrace.clock import Alarm, Clock
    from headrace.logs import FoldingHandler


class LogReports:
    """Report folded lines while an app is open; nothing where `headrace.logs.setup_logs` was not called.

    Args:
        clock: The clock of the app.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._handler: FoldingHandler | None = None
        self._alarm: Alarm | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin, unless another app of this process does it."""
        handler = find_handler()
        if handler is None or handler.waits is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._alarm = self._clock.alarm("report folded log lines", self._report, owner="logs")
        self._handler = handler
        handler.waits = self._waits

    def close(self) -> None:
        """Report no more."""
        if self._handler is not None:
            self._handler.waits = None
        if self._alarm is not None:
            self._alarm.close()
        self._handler = self._alarm = None

    def _waits(self, seconds: float) -> None:
        """Have the alarm set; called by any thread that logs."""
        if self._loop is not None:
            # A loop that has closed meanwhile has nobody left to report to; the handler does so at the end.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set, seconds)

    def _set(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.set(self._clock.now() + seconds)

    def _report(self) -> None:
        following = self._handler.report() if self._handler is not None else None
        if following is not None:
            self._set(max(0.001, following))
