"""Watch over one server for as long as somebody uses it: the process between the users and the server.

The keeper starts the server as its child, holds one connection for each user and stops the server when the last
one has gone. It runs as a file of its own (`python -I -S keeper.py ...`) and imports only what it needs, so that it
stays small; it knows nothing of queues, folders or versions, which are the launcher's business.

What holds when a process dies without a word:

* a user: the kernel closes its connection, which is all that a goodbye would have done;
* the keeper: on Linux the kernel then kills the server (PR_SET_PDEATHSIG). Elsewhere the server runs on until the
  next `ensure_server` on its folder, which stops it and starts anew;
* the server: the keeper starts it again on the same data, `RESTARTS` times within `RESTART_WINDOW` at most;
* the lock on the folder is held by keeper and server alike, so it is free only when both are gone.

Lines from a user: `hello LINGER_MS`, `count`, `leave`. Lines to a user: `ready PID`, `failed REASON`, `users N`,
`stays N`. A connection that said `leave` ends when the server has stopped, unless `stays N` came first.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

LOG_LIMIT_BYTES = 512 * 1024
"""Size of the server's log; one older file of the same size is kept."""

LINE_LIMIT_BYTES = 256
RESTARTS = 5
RESTART_WINDOW = 60.0
STOP_TIMEOUT = 10.0
READY_MARK = b"eady to accept connections"
PR_SET_PDEATHSIG = 1


class Log:
    """Write the server's output to a file of bounded size."""

    def __init__(self, path: str, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        """Continue the file at `path`; beyond `limit_bytes` it becomes `path`.1 and a new one begins."""
        self.path = path
        self.limit_bytes = limit_bytes
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append `data`; a full disk costs log lines, never the server."""
        try:
            if os.fstat(self._file).st_size + len(data) > self.limit_bytes:
                os.replace(self.path, self.path + ".1")  # noqa: PTH105 - pathlib would double the keeper's imports
                os.close(self._file)
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(self._file, data)
        except OSError:
            return

    def note(self, text: str) -> None:
        """Append a line of the keeper's own."""
        stamp = time.strftime("%d %b %Y %H:%M:%S")
        self.write(f"{os.getpid()}:K {stamp} # {text}\n".encode())


class User:
    """Hold the connection of one process that uses the server."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over an open connection."""
        connection.settimeout(0)
        self.connection = connection
        self.linger = 0.5
        self.leaving = False
        self.gone = False
        self._pending = b""

    def lines(self) -> list[str]:
        """Read the lines that have arrived, and note whether the user has gone."""
        # Why: up to the end of what is there, so that a goodbye right after a greeting is not overlooked.
        while not self.gone:
            try:
                data = self.connection.recv(4096)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._pending += data
            self.gone = not data or len(self._pending) > LINE_LIMIT_BYTES
        *lines, self._pending = self._pending.split(b"\n")
        return [line.decode("ascii", "replace") for line in lines]

    def tell(self, line: str) -> None:
        """Send one line; a user that has gone or does not read is found out by its connection."""
        with suppress(OSError):
            self.connection.send(line.encode() + b"\n")


def start_child(command: list[str], output: int) -> int:
    """Start `command` as a child that dies with this process, writing to `output`; return its process id."""
    keeper_pid = os.getpid()
    child_pid = os.fork()
    if child_pid:
        return child_pid
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            # Why: the keeper may have died before the request; then nobody would ever send the signal.
            if os.getppid() != keeper_pid:
                os._exit(127)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execv(command[0], command)  # noqa: S606 - without a shell is how it should be
    except OSError as error:
        os.write(output, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


class Keeper:
    """Serve the users of one server until the last has gone."""

    def __init__(self, command: list[str], log: Log, *, control_path: str, restarts: int) -> None:
        """Prepare; nothing is started before `run`.

        Args:
            command: The server's program and arguments.
            log: Where the server's output goes.
            control_path: Socket file of the listener, removed when the server stops; empty for none.
            restarts: How often within `RESTART_WINDOW` seconds a server that ended by itself is started again.
        """
        self.command = command
        self.log = log
        self.control_path = control_path
        self.restarts = restarts
        self.listener: socket.socket | None = None
        self.users: dict[int, User] = {}
        self.server_pid = 0
        self.ready = False
        self.stopping = False
        self.finished = False
        self._output = -1
        self._tail = b""
        self._linger = 0.5
        self._deadline: float | None = None
        self._started_at: list[float] = []
        self._poll = select.poll()
        self._wakeup, wakeup_end = socket.socketpair()
        self._wakeup.settimeout(0)
        wakeup_end.settimeout(0)
        self._wakeup_end = wakeup_end

    def run(self, *, listener: socket.socket | None, user: socket.socket | None) -> None:
        """Start the server and serve until it has stopped.

        Args:
            listener: Listening socket to which users connect, or None for a server with one owner.
            user: Connection of the first user, or None when it waits at the listener.
        """
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._poll.register(self._wakeup, select.POLLIN)
        if listener is not None:
            listener.settimeout(0)
            self.listener = listener
            self._poll.register(listener, select.POLLIN)
        if user is not None:
            self._add(user)
        self._start()
        self._settle()
        while not self.finished:
            self._step()

    def _step(self) -> None:
        wait_ms = None if self._deadline is None else max(0, int((self._deadline - time.monotonic()) * 1000) + 1)
        for fd, _ in self._poll.poll(wait_ms):
            if fd == self._wakeup.fileno():
                self._signals(self._wakeup.recv(256))
            elif fd == self._output:
                self._copy_output()
            elif self.listener is not None and fd == self.listener.fileno():
                self._accept()
            elif fd in self.users:
                self._hear(fd)
        if self.finished:
            return
        # Why: only after the whole batch, so that a user who left before another asked is not counted for it.
        self._settle()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            self._overdue()

    # The server.

    def _start(self) -> None:
        now = time.monotonic()
        self._started_at = [*(at for at in self._started_at if now - at < RESTART_WINDOW), now]
        self.ready = False
        self._tail = b""
        self._output, write_end = os.pipe()
        # Why: a keeper that is paused must not block the server, which then rather drops a line.
        os.set_blocking(write_end, False)
        os.set_blocking(self._output, False)
        self._poll.register(self._output, select.POLLIN)
        self.server_pid = start_child(self.command, write_end)
        os.close(write_end)

    def _copy_output(self) -> None:
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        if not data:
            self._close_output()
            return
        self.log.write(data)
        if not self.ready and READY_MARK in self._tail + data:
            self.ready = True
            self._tell_all(f"ready {self.server_pid}")
        self._tail = data[-len(READY_MARK) :]

    def _close_output(self) -> None:
        if self._output >= 0:
            self._poll.unregister(self._output)
            os.close(self._output)
            self._output = -1

    def _signals(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        if {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} & set(numbers):
            self._stop()

    def _reap(self) -> None:
        if not self.server_pid:
            return
        pid, status = os.waitpid(self.server_pid, os.WNOHANG)
        if not pid:
            return
        while self._output >= 0 and select.select([self._output], [], [], 0)[0]:
            self._copy_output()
        self._close_output()
        self.server_pid = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        if self.stopping:
            self.finished = True
        elif self.ready and self.users and len(self._started_at) <= self.restarts:
            self.log.note(f"the server ended with {how}; starting it again")
            self._start()
        else:
            self.log.note(f"the server ended with {how}")
            # Why: users that have connected but were not yet taken in must hear of it too.
            self._accept()
            self._tell_all(f"failed {how}")
            self._close_listener()
            self.finished = True

    def _stop(self) -> None:
        if self.stopping:
            return
        self.stopping = True
        self._close_listener()
        self._deadline = time.monotonic() + STOP_TIMEOUT
        if self.server_pid:
            os.kill(self.server_pid, signal.SIGTERM)
            # Why: a paused server hears SIGTERM only when it runs again.
            os.kill(self.server_pid, signal.SIGCONT)

    def _overdue(self) -> None:
        if self.stopping:
            self.log.note(f"the server did not stop within {STOP_TIMEOUT} s and is killed")
            os.kill(self.server_pid, signal.SIGKILL)
        elif not self._staying():
            self._stop()

    # The users.

    def _staying(self) -> list[User]:
        return [user for user in self.users.values() if not user.leaving]

    def _accept(self) -> None:
        """Take in every user that has connected."""
        while self.listener is not None:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self._add(connection)

    def _add(self, connection: socket.socket) -> None:
        user = User(connection)
        self.users[connection.fileno()] = user
        self._poll.register(connection, select.POLLIN)
        if self.ready:
            user.tell(f"ready {self.server_pid}")

    def _hear(self, fd: int) -> None:
        user = self.users[fd]
        for line in user.lines():
            word, _, rest = line.partition(" ")
            if word == "hello" and rest.isdigit():
                user.linger = int(rest) / 1000
            elif word == "count":
                user.tell(f"users {len(self._staying())}")
            elif word == "leave":
                user.leaving = True
                self._linger = user.linger
        if user.gone:
            del self.users[fd]
            self._poll.unregister(fd)
            user.connection.close()
            if not user.leaving:
                self._linger = user.linger

    def _settle(self) -> None:
        """Start the linger when nobody stays, end it when somebody does."""
        if self.stopping:
            return
        staying = self._staying()
        if not staying:
            self._deadline = self._deadline or time.monotonic() + self._linger
            return
        self._deadline = None
        for user in self.users.values():
            if user.leaving:
                user.tell(f"stays {len(staying)}")

    def _tell_all(self, line: str) -> None:
        for user in self.users.values():
            user.tell(line)

    def _close_listener(self) -> None:
        if self.listener is None:
            return
        self._poll.unregister(self.listener)
        if self.control_path:
            remove(self.control_path)
        self.listener.close()
        self.listener = None


def remove(path: str) -> None:
    """Remove a file if it is there."""
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - as in Log.write


def main(arguments: list[str]) -> None:
    """Run the keeper.

    Args:
        arguments: Numbers of the inherited descriptors of the lock, the listener and the first user (-1 for none);
            paths of the log, the listener's socket, the server's socket and the state file (empty for none); number of
            restarts; then the server's command.
    """
    lock_fd, listener_fd, user_fd = (int(text) for text in arguments[:3])
    log_path, control_path, socket_path, state_path, restarts = arguments[3:8]
    # Why: the parent exits at once, so that no user ever has the keeper as a child to wait for.
    if os.fork():
        os._exit(0)
    os.chdir("/")
    # Why: the server inherits the lock, and nothing else.
    for fd in (listener_fd, user_fd):
        if fd >= 0:
            os.set_inheritable(fd, False)  # noqa: FBT003 - it has no keyword
    keeper = Keeper(arguments[8:], Log(log_path), control_path=control_path, restarts=int(restarts))
    keeper.run(
        listener=socket.socket(fileno=listener_fd) if listener_fd >= 0 else None,
        user=socket.socket(fileno=user_fd) if user_fd >= 0 else None,
    )
    remove(socket_path)
    remove(state_path)
    with suppress(OSError):
        os.rmdir(os.path.dirname(socket_path))  # noqa: PTH106, PTH120 - as in Log.write
    # Why: a user that waits for the end sees it by its connection, which closes after this; the folder is free then.
    os.close(lock_fd)


if __name__ == "__main__":
    main(sys.argv[1:])
