"""A server that belongs to one caller: for tests, the test kit and `headrace verify`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import IO, TYPE_CHECKING, Final, Self

from headrace.errors import OptionError, ServerStartFailed, UsageError
from headrace.server.binary import ServerBinary, find_server
from headrace.server.folder import DataFolder
from headrace.server.launch import server_command, spawn_keeper
from headrace.server.use import KeeperConnection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

_START_TIMEOUT: Final = 10.0
_STOP_TIMEOUT: Final = 15.0
_LOCK_PAUSE: Final = 0.01


class PrivateServer:
    """A server of the caller alone, which ends with the caller's process in whatever way that ends."""

    def __init__(self, folder: Path, *, port: int | None, extra: Sequence[str], binary: ServerBinary) -> None:
        """Use `start_private_server` instead."""
        self.folder = DataFolder(folder)
        self.binary = binary
        self.port = _free_port() if port == 0 else port
        self.extra = tuple(extra)
        self.pid = 0
        self.socket_url = ""
        self._connection: KeeperConnection | None = None

    @property
    def url(self) -> str:
        """Address of the server: TCP when it has a port, else its socket."""
        return self.socket_url if self.port is None else f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        """Whether the server was started and neither stopped nor killed through this object."""
        return self._connection is not None

    def start(self) -> None:
        """Start the server on the folder's data and wait until it answers.

        Raises:
            UsageError: It is running already.
            ServerStartFailed: It ended at once, was not ready in time, or somebody else uses the folder.
        """
        if self._connection is not None:
            raise UsageError(f"the private server of {self.folder.path} is running already. Call restart() or stop().")
        deadline = time.monotonic() + _START_TIMEOUT
        with self._await_lock(deadline) as lock:
            _, socket_path = self.folder.make_socket_paths()
            self.socket_url = f"unix://{socket_path}"
            ours, theirs = socket.socketpair()
            connection = KeeperConnection(ours)
            with theirs:
                command = server_command(self.binary, self.folder, socket_path, port=self.port or 0, extra=self.extra)
                spawn_keeper(command, self.folder, lock, socket_path=socket_path, user_fd=theirs.fileno(), restarts=0)
        connection.send("hello 0")
        self._await_ready(connection, deadline)

    def stop(self) -> None:
        """Stop the server cleanly and wait for its end; nothing happens when it is not running."""
        if self._connection is not None:
            self._connection.send("leave")
            self._await_end()

    def kill(self) -> None:
        """End the server with SIGKILL and wait for its end; nothing happens when it is not running."""
        if self._connection is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._await_end()

    def restart(self) -> None:
        """Stop the server if it is running, and start it again on the same data, address and options."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_lock(self, deadline: float) -> IO[bytes]:
        while (lock := self.folder.try_lock()) is None:
            if time.monotonic() > deadline:
                raise ServerStartFailed(
                    f"the folder {self.folder.path} is in use by another server. Give the private server its own."
                )
            time.sleep(_LOCK_PAUSE)
        return lock

    def _await_ready(self, connection: KeeperConnection, deadline: float) -> None:
        try:
            line = connection.receive(timeout=max(0.0, deadline - time.monotonic())) or ""
        except TimeoutError:
            line = f"failed to be ready within {_START_TIMEOUT} s"
        if not line.startswith("ready "):
            connection.close()
            raise ServerStartFailed(
                f"the private server of {self.folder.path} ({self.binary.path}) did not start: {line or 'it ended'}. "
                f"Its log {self.folder.log_path} ends with:\n{self.folder.log_tail()}\nRepair what it names."
            )
        self.pid = int(line.partition(" ")[2])
        self._connection = connection

    def _await_end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        deadline = time.monotonic() + _STOP_TIMEOUT
        with contextlib.suppress(TimeoutError):
            while connection.receive(timeout=max(0.0, deadline - time.monotonic())) is not None:
                pass
        connection.close()


def start_private_server(folder: Path, *, port: int | None = None, extra: Sequence[str] = ()) -> PrivateServer:
    """Start a server that belongs to the caller alone.

    Args:
        folder: Where its data, log and lock go; data of an earlier run are loaded.
        port: TCP port on 127.0.0.1; 0 takes a free one; None listens on a private socket only.
        extra: More options in the server's own form, such as `("--appendfsync", "always")`; they win over the default
            ones (append-only file, written to disk every second).

    Returns:
        The running server, which the caller stops.

    Raises:
        OptionError: The port is out of its bounds.
        ServerStartFailed: There is no server program, it did not start, or the folder cannot be used.
        ServerTooOld: The server program on PATH is too old.
    """
    if port is not None and not 0 <= port <= 65535:  # noqa: PLR2004 - the highest port there is
        raise OptionError(f"port={port!r}: expected a whole number from 0 to 65535, or None for no TCP port.")
    server = PrivateServer(folder, port=port, extra=extra, binary=find_server())
    server.start()
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
