"""A way to a server that takes time: every piece of data waits, in both directions, in threads of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

from headrace.pool.address import parse_address

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 10.0


class SlowProxy:
    """Pass everything on after `delay` seconds; the delay may change at any time.

    Attributes:
        delayed: Pieces of data that had to wait.
    """

    def __init__(self, folder: Path, target: str, delay: float = 0.0) -> None:
        self.url = f"unix://{folder / f'slow-{os.urandom(4).hex()}.sock'}"
        self.delay = delay
        self.delayed = 0
        self._target = parse_address(target)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.url.removeprefix("unix://"))
        self._listener.listen(16)
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def _spawn(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="slow proxy", daemon=True)  # type: ignore[arg-type]  # both callers hand over a method
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            upstream.connect(str(self._target.path))
            self._sockets += [client, upstream]
            self._spawn(self._pump, client, upstream)
            self._spawn(self._pump, upstream, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self.delay:
                    self.delayed += 1
                    time.sleep(self.delay)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
