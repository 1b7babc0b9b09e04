"""A way to a server on which its clock stands wrong: the time in its INFO is shifted, which is what NTP would mend."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import TYPE_CHECKING

from tests.support.slow_proxy import SlowProxy

if TYPE_CHECKING:
    from pathlib import Path

CLOCK = re.compile(rb"(?<=server_time_usec:)\d+")


class ShiftedClock(SlowProxy):
    """Pass everything on, and shift the time that the server tells.

    Attributes:
        shifted: Replies that were changed.
    """

    def __init__(self, folder: Path, target: str, seconds: float) -> None:
        self.shifted = 0
        self._micros = round(seconds * 1_000_000)
        super().__init__(folder, target)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(CLOCK.sub(self._shift, data))
            sink.shutdown(socket.SHUT_RDWR)

    def _shift(self, found: re.Match[bytes]) -> bytes:
        self.shifted += 1
        return b"%d" % (int(found[0]) + self._micros)
