"""Start a keeper, and with it a server, on a locked data folder.

Owns the command lines of both; what the keeper does is in `keeper.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from headrace.errors import ServerStartFailed
from headrace.server import keeper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.server.binary import ServerBinary
    from headrace.server.folder import DataFolder

_SPAWN_TIMEOUT: Final = 10.0

# Why: the keeper outlives the process that starts it, so it is not given that process's secrets.
_ENVIRONMENT_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def server_command(
    binary: ServerBinary, folder: DataFolder, socket_path: str, *, port: int = 0, extra: Sequence[str] = ()
) -> list[str]:
    """Write the command line of a server: private socket, no TCP port, append-only file.

    Args:
        binary: The program.
        folder: Where its data go.
        socket_path: Where it listens.
        port: TCP port on 127.0.0.1; 0 for none.
        extra: More options in the server's own form; they win over those chosen here.
    """
    options = {
        "dir": str(folder.path),
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "port": str(port),
        "bind": "127.0.0.1",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        "logfile": "",
        "loglevel": "notice",
    }
    command = [str(binary.path)]
    for name, value in options.items():
        command += [f"--{name}", value]
    return [*command, *extra]


def spawn_keeper(
    command: Sequence[str],
    folder: DataFolder,
    lock: IO[bytes],
    *,
    socket_path: str,
    control_path: str = "",
    listener_fd: int = -1,
    user_fd: int = -1,
    restarts: int,
) -> None:
    """Start a keeper in a session of its own and return when it runs.

    Args:
        command: The server's command line.
        folder: The data folder, whose lock is held.
        lock: The lock, which keeper and server inherit.
        socket_path: The server's socket, removed at the end.
        control_path: The keeper's socket, removed at the end; empty for none.
        listener_fd: The listening socket of the keeper, or -1.
        user_fd: The connection of the only user, or -1.
        restarts: How often a server that ended by itself is started again.

    Raises:
        ServerStartFailed: Python could not be started.
    """
    state_path = str(folder.state_path) if control_path else ""
    try:
        with folder.log_path.open("ab") as log:
            done = subprocess.run(
                [
                    *(_find_python(), "-I", "-S", keeper.__file__),
                    str(lock.fileno()),
                    str(listener_fd),
                    str(user_fd),
                    *(str(folder.log_path), control_path, socket_path, state_path, str(restarts)),
                    *command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[fd for fd in (listener_fd, user_fd, lock.fileno()) if fd >= 0],
                env={name: os.environ[name] for name in _ENVIRONMENT_KEPT if name in os.environ},
                start_new_session=True,
                timeout=_SPAWN_TIMEOUT,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerStartFailed(
            f"the keeper of the server of {folder.path} could not be started: {error}. Check memory and process "
            "limits, or set REDIS_URL to a running server."
        ) from error
    # Why: a keeper that was killed (a negative code) leaves a connection that ends, after which the caller tries again.
    if done.returncode > 0:
        raise ServerStartFailed(
            f"the keeper of the server of {folder.path} ended with exit status {done.returncode}. Its log "
            f"{folder.log_path} ends with:\n{folder.log_tail()}\nSet REDIS_URL to a running server to go on without it."
        )


def _find_python() -> str:
    """Locate the interpreter; in a program that embeds Python, `sys.executable` is that program."""
    for path in (sys.executable, f"{sys.base_exec_prefix}/bin/python3"):
        if path and Path(path).name.startswith(("python", "pypy")) and os.access(path, os.X_OK):
            return path
    raise ServerStartFailed(
        f"no Python interpreter found to watch over the default server: {sys.executable!r} is none and "
        f"{sys.base_exec_prefix}/bin/python3 does not exist. Set REDIS_URL to a running server."
    )
