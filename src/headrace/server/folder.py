"""The data folder of a server: made, checked, locked, and given short paths for its sockets.

Owns the names of the files in it; leaves processes to `launch.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from headrace.errors import ServerStartFailed
from headrace.server.forks import keep_from_forks

# Source: sockaddr_un in unix(7), 108 bytes with the closing zero on Linux, and 104 in sys/un.h of macOS and the BSDs.
SOCKET_PATH_LIMIT_BYTES: Final = 107 if sys.platform == "linux" else 103

_CONTROL_NAME: Final = "keeper.sock"
_SERVER_NAME: Final = "server.sock"
_LOG_TAIL_BYTES: Final = 2048
_LOG_TAIL_LINES: Final = 6


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where the server of a data folder listens and which program it is: the content of the state file."""

    control_path: str
    socket_path: str
    program: str
    product: str
    version: list[int]
    origin: str


class DataFolder:
    """One data folder and the paths of what belongs to its server."""

    def __init__(self, path: Path) -> None:
        """Make the folder if need be, and check that it can be written.

        Args:
            path: The folder; a relative path is taken from the current folder.

        Raises:
            ServerStartFailed: The folder cannot be made or written.
        """
        self.path = path.absolute()
        try:
            self._make()
            self.path = self.path.resolve(strict=True)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self._unusable("permission denied")
        self.log_path = self.path / "server.log"
        self.lock_path = self.path / "server.lock"
        self.state_path = self.path / "server.json"

    def try_lock(self) -> IO[bytes] | None:
        """Take the lock of the folder without waiting.

        Keeper and server inherit the lock, so it is free only when no process of theirs is left.

        Returns:
            The open lock file, which unlocks when its last copy is closed, or None while somebody else has it.

        Raises:
            ServerStartFailed: The lock file cannot be opened.
        """
        try:
            lock = keep_from_forks(self.lock_path.open("ab"))
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def make_socket_paths(self) -> tuple[str, str]:
        """Make the private folder of the sockets, and clear what a crash left in it; the lock must be held.

        Returns:
            The path of the keeper's socket and of the server's, both short enough for the kernel.

        Raises:
            ServerStartFailed: The folder cannot be made, or belongs to another user.
        """
        folder = self.path / "run"
        if len(os.fsencode(folder / _CONTROL_NAME)) > SOCKET_PATH_LIMIT_BYTES:
            digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}-{digest}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()
            if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
                raise ServerStartFailed(
                    f"{folder} is no folder of this user (owner {facts.st_uid}, this user {os.getuid()}), so the "
                    f"sockets of the server of {self.path} are not put there. Remove it, or choose another "
                    "HEADRACE_DATA_DIR."
                )
            folder.chmod(0o700)
            paths = folder / _CONTROL_NAME, folder / _SERVER_NAME
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(f"{folder}: {error.strerror or error}") from error
        return str(paths[0]), str(paths[1])

    def write_place(self, place: ServerPlace) -> None:
        """Say where the server is; the lock must be held.

        Raises:
            ServerStartFailed: The file cannot be written.
        """
        draft = self.state_path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(asdict(place)))
            draft.replace(self.state_path)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error

    def read_place(self) -> ServerPlace | None:
        """Read where the server is, or None when nobody has said so in a form that can be read."""
        try:
            fields: dict[str, Any] = json.loads(self.state_path.read_text())
            return ServerPlace(**fields)
        except (OSError, ValueError, TypeError):
            return None

    def log_tail(self) -> str:
        """Read the last lines of the server's log, for an error message."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(f"  {line}" for line in lines[-_LOG_TAIL_LINES:]) or "(empty log)"

    def _make(self) -> None:
        if self.path.is_dir():
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Why: the folder often lies inside a repository, where its content must not be committed.
        (self.path / ".gitignore").write_text("*\n")

    def _unusable(self, reason: str) -> ServerStartFailed:
        return ServerStartFailed(
            f"the data folder {self.path} cannot be used: {reason}. Set HEADRACE_DATA_DIR to a folder that this user "
            "can write, or set REDIS_URL to a running server."
        )
