"""Signals of a worker process and of its supervisor: the first asks for a graceful stop, the second for a hard one.

SIGTERM and SIGINT stop: the first time gracefully, the second time hard, the third time at once. SIGHUP restarts; when
it says that the terminal is gone, it stops gracefully. Under a supervisor a signal only ever stops gracefully: a
service manager may signal every process itself, and what the supervisor forwards must not count as the second one.
Handlers are those of the event loop, so they run between the steps of coroutines, never in the middle of one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STANDARD_INPUT: Final = 0


class Stoppable(Protocol):
    """What signals act on."""

    def stop(self, *, hard: bool = False) -> None:
        """Stop gracefully, or with no grace."""
        ...

    def restart(self) -> None:
        """Stop gracefully and start anew."""
        ...


class ShutdownSignals:
    """Act on signals while the block runs; the handlers before it are the default ones again after it.

    Args:
        target: Is stopped and restarted.
        supervised: The second signal is left to the supervisor.

    Attributes:
        count: Stop signals so far.
    """

    def __init__(self, target: Stoppable, *, supervised: bool = False) -> None:
        self.count = 0
        self._supervised = supervised
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._has_terminal = os.isatty(_STANDARD_INPUT)

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            self._loop.remove_signal_handler(number)

    def _stop(self, number: signal.Signals) -> None:
        self.count += 1
        if self._supervised:
            if self.count == 1:
                logger.info("stopping gracefully", extra={"signal": number.name})
                self._target.stop()
            return
        if self.count == 1:
            logger.info("stopping gracefully; another signal stops at once", extra={"signal": number.name})
            self._target.stop()
            return
        # Why: whoever signals a third time wants the end, whatever hangs; the lease sees to the jobs. This comes before
        # the line in the log, which may be what the third signal waits for.
        for each in STOP_SIGNALS:
            self._loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        logger.warning("stopping without grace", extra={"signal": number.name})
        self._target.stop(hard=True)

    def _hang_up(self) -> None:
        if self._has_terminal and not os.isatty(_STANDARD_INPUT):
            self._has_terminal = False
            logger.info("stopping gracefully; the terminal is gone", extra={"signal": "SIGHUP"})
            self._target.stop()
        else:
            logger.info("restarting", extra={"signal": "SIGHUP"})
            self._target.restart()
