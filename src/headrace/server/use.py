"""One process's use of the shared server of a data folder."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal, Self, cast

from headrace.errors import OptionError, ServerStartFailed
from headrace.server.binary import Product, ServerBinary, find_server
from headrace.server.folder import DataFolder, ServerPlace
from headrace.server.forks import keep_from_forks
from headrace.server.keeper import RESTARTS
from headrace.server.launch import server_command, spawn_keeper

if TYPE_CHECKING:
    from types import TracebackType

_BACKLOG: Final = 512
_RETRY_FIRST: Final = 0.005
_RETRY_LONGEST: Final = 0.05
_ORPHAN_AFTER: Final = 1.0
_ANSWER_TIMEOUT: Final = 5.0


class KeeperConnection:
    """The connection to a keeper, line by line."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over an open connection, which forked children close."""
        self.socket = keep_from_forks(connection)
        self._pending = b""

    def send(self, line: str) -> None:
        """Send one line; a keeper that has gone shows at the next `receive`."""
        with contextlib.suppress(OSError):
            self.socket.send(line.encode() + b"\n")

    def receive(self, *, timeout: float) -> str | None:
        """Wait for the next line.

        Args:
            timeout: Longest wait in seconds; 0 takes only what has arrived.

        Returns:
            The line, or None when the keeper has gone.

        Raises:
            TimeoutError: No line within the timeout.
        """
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            try:
                self.socket.settimeout(max(0.0, deadline - time.monotonic()))
                data = self.socket.recv(4096)
            except BlockingIOError as error:
                raise TimeoutError from error
            except TimeoutError:
                raise
            except OSError:
                return None
            if not data:
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode("ascii", "replace")

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class ServerUse:
    """Hold the shared server of a data folder: it runs at least as long as this is not released.

    The use belongs to the process that made it. A forked child does not own it and cannot keep the server alive by
    it; it calls `ensure_server` itself.
    """

    def __init__(self, connection: KeeperConnection, place: ServerPlace, folder: DataFolder, pid: int) -> None:
        """Use `ensure_server` instead."""
        self.data_dir = folder.path
        self.socket_path = place.socket_path
        self.url = f"unix://{place.socket_path}"
        self.binary = ServerBinary(
            path=Path(place.program),
            product=cast("Product", place.product),
            version=tuple(place.version),
            origin=cast("Literal['PATH', 'wheel']", place.origin),
        )
        self._connection = connection
        self._pid = pid
        self._lost = False

    @property
    def pid(self) -> int:
        """Process id of the server; another one after the keeper had to start it again."""
        self._catch_up()
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether the server is still kept for this process; False after release, and when its keeper died."""
        if self._connection.socket.fileno() < 0:
            return False
        self._catch_up()
        return not self._lost

    def fileno(self) -> int:
        """Descriptor that becomes readable when the server was started again or its keeper died; -1 when released."""
        return self._connection.socket.fileno()

    def count_users(self) -> int:
        """Ask how many connections use the server now, this one included; 0 when it is not alive."""
        self._connection.send("count")
        return self._await_number("users")

    def release(self) -> None:
        """Give the server up without waiting; the last one to do so stops it. May be called again."""
        self._connection.close()

    def release_and_wait(self, timeout: float = 15.0) -> int:
        """Give the server up and wait until it has stopped or is known to go on for others.

        Args:
            timeout: Longest wait in seconds.

        Returns:
            The number of others that still use it; 0 when it has stopped.

        Raises:
            TimeoutError: Neither was known in time; the server is released all the same.
        """
        try:
            self._connection.send("leave")
            return self._await_number("stays", timeout)
        finally:
            self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _await_number(self, word: str, timeout: float = _ANSWER_TIMEOUT) -> int:
        deadline = time.monotonic() + timeout
        while not self._lost and self._connection.socket.fileno() >= 0:
            line = self._connection.receive(timeout=max(0.0, deadline - time.monotonic()))
            if line is not None and line.startswith(f"{word} "):
                return int(line.partition(" ")[2])
            self._note(line)
        return 0

    def _catch_up(self) -> None:
        with contextlib.suppress(TimeoutError):
            while not self._lost and self._connection.socket.fileno() >= 0:
                self._note(self._connection.receive(timeout=0))

    def _note(self, line: str | None) -> None:
        if line is None:
            self._lost = True
        elif line.startswith("ready "):
            self._pid = int(line.partition(" ")[2])


def ensure_server(data_dir: Path, *, timeout: float = 10.0, linger: float = 0.5) -> ServerUse:
    """Use the server of a data folder, starting it when nobody has yet.

    Blocks; may be called in any thread. All processes that name the same folder get the same server. It stops when the
    last of them has released it or ended in whatever way.

    Args:
        data_dir: Folder of the data, log and lock; made when missing.
        timeout: Longest wait in seconds for the server to answer, 0 < timeout <= 600.
        linger: Seconds for which the server goes on after its last user, 0 <= linger <= 3600. Of several users the
            last one's counts.

    Returns:
        The use, which the caller releases.

    Raises:
        OptionError: A value is out of its bounds.
        ServerStartFailed: The folder cannot be written, there is no server program, or it did not start in time.
        ServerTooOld: The server program on PATH is too old.
    """
    if not 0 < timeout <= 600:  # noqa: PLR2004 - the bound is in the docstring and the message
        raise OptionError(f"timeout={timeout!r}: expected seconds, more than 0 and at most 600.")
    if not 0 <= linger <= 3600:  # noqa: PLR2004 - as above
        raise OptionError(f"linger={linger!r}: expected seconds from 0 to 3600.")
    folder = DataFolder(data_dir)
    deadline = time.monotonic() + timeout
    refused_since: float | None = None
    pause = _RETRY_FIRST
    while True:
        connection, place = _reach(folder, linger)
        if connection is not None and place is not None:
            refused_since = None
            use = _await_ready(connection, place, folder, deadline)
            if use is not None:
                return use
        elif place is not None:
            refused_since = refused_since or time.monotonic()
            if time.monotonic() - refused_since > _ORPHAN_AFTER:
                _stop_orphan(place)
                refused_since = None
        if time.monotonic() + pause > deadline:
            raise ServerStartFailed(
                f"the server of {folder.path} neither answered nor ended within {timeout} s, and holds the lock "
                f"{folder.lock_path}. Its log {folder.log_path} ends with:\n{folder.log_tail()}\n"
                "End that server, or choose another HEADRACE_DATA_DIR."
            )
        # Why: nothing signals within a deadline that a lock came free; this is a start, and the timeout bounds it.
        time.sleep(pause)
        pause = min(pause * 2, _RETRY_LONGEST)


def _reach(folder: DataFolder, linger: float) -> tuple[KeeperConnection | None, ServerPlace | None]:
    """Connect to the keeper of the folder, having started one if the lock is free."""
    lock = folder.try_lock()
    if lock is not None:
        with lock:
            return _launch(folder, lock, linger)
    place = folder.read_place()
    return (_connect(place, linger) if place else None), place


def _launch(folder: DataFolder, lock: IO[bytes], linger: float) -> tuple[KeeperConnection, ServerPlace]:
    """Start keeper and server; the first user's connection waits at the listener before the keeper exists."""
    binary = find_server()
    control_path, socket_path = folder.make_socket_paths()
    with keep_from_forks(socket.socket(socket.AF_UNIX)) as listener:
        try:
            listener.bind(control_path)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ServerStartFailed(
                f"no socket can be made at {control_path}: {error.strerror}. Choose a HEADRACE_DATA_DIR on a local "
                "file system, or set REDIS_URL to a running server."
            ) from error
        place = ServerPlace(
            control_path=control_path,
            socket_path=socket_path,
            program=str(binary.path),
            product=binary.product,
            version=list(binary.version),
            origin=binary.origin,
        )
        connection = _connect(place, linger)
        if connection is None:
            raise ServerStartFailed(
                f"the socket {control_path} refuses connections. Set REDIS_URL to a running server."
            )
        try:
            folder.write_place(place)
            spawn_keeper(
                server_command(binary, folder, socket_path),
                folder,
                lock,
                socket_path=socket_path,
                control_path=control_path,
                listener_fd=listener.fileno(),
                restarts=RESTARTS,
            )
        except ServerStartFailed:
            connection.close()
            raise
    return connection, place


def _connect(place: ServerPlace, linger: float) -> KeeperConnection | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_ANSWER_TIMEOUT)
        connection.connect(place.control_path)
    except OSError:
        connection.close()
        return None
    keeper = KeeperConnection(connection)
    keeper.send(f"hello {round(linger * 1000)}")
    return keeper


def _await_ready(
    connection: KeeperConnection, place: ServerPlace, folder: DataFolder, deadline: float
) -> ServerUse | None:
    """Wait for the keeper's word; None when it ended before, which is a reason to try again."""
    wait = max(0.0, deadline - time.monotonic())
    try:
        line = connection.receive(timeout=wait)
    except TimeoutError as error:
        connection.close()
        raise ServerStartFailed(
            f"the server of {folder.path} ({place.program}) was not ready within the last {wait:.1f} s. Its log "
            f"{folder.log_path} ends with:\n{folder.log_tail()}\nRaise the timeout if it is still loading its data."
        ) from error
    word, _, rest = (line or "").partition(" ")
    if word == "ready":
        # Why: a place read before the connection may be that of an earlier server at the same address.
        return ServerUse(connection, folder.read_place() or place, folder, int(rest))
    connection.close()
    if word == "failed":
        raise ServerStartFailed(
            f"the server of {folder.path} ({place.program}) ended with {rest} before it was ready. Its log "
            f"{folder.log_path} ends with:\n{folder.log_tail()}\nRepair what it names, or "
            "choose another HEADRACE_DATA_DIR."
        )
    return None


def _stop_orphan(place: ServerPlace) -> None:
    """Stop a server whose keeper was killed, where the kernel does not do so (systems other than Linux)."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_TIMEOUT)
        connection.connect(place.socket_path)
        connection.sendall(b"SHUTDOWN\r\n")
        connection.recv(1)
