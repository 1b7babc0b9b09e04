"""One child process that runs `process=True` tasks, as its worker sees it: started, spoken to, killed, reaped.

Everything comes as an event of the loop: what the child says by its socket, its end by a descriptor of the process
(pidfd), or, on systems without one, by the end of the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from headrace.census import Kind
from headrace.errors import HeadraceError, ProcessDied, RecordCorrupt, UsageError
from headrace.memory.cgroup import count_oom_kills
from headrace.worker.frames import Begin, Call, Done, Failed, FrameReader, Message, Note, Noted, Ready, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census
    from headrace.worker.attempt import Attempt
    from headrace.worker.frames import Location

# The child looks for modules where its worker does; its own arguments are the socket and the worker's process id.
PROGRAM: Final = "import sys; sys.path[:] = sys.argv[3:]; from headrace.worker.job_main import main; main()"

#: Longest start of a child, with the imports of all its tasks, seconds.
START_TIMEOUT: Final = 60.0

#: Signals by which native code ends a process that went wrong.
_CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE},
)


class JobProcess(asyncio.Protocol):
    """A child process, which runs one job at a time.

    Args:
        census: Where it is entered until it is reaped.
        ended: Called when it was reaped.

    Raises:
        OSError: It cannot be started.

    Attributes:
        pid: Its process id.
        gone: Ends when it was reaped.
        killed: It was sent SIGKILL from here.
        corrupt: What was wrong with what it said, if that is why it was killed.
    """

    def __init__(self, census: Census, ended: Callable[[JobProcess], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._census = census
        self._ended = ended
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.killed = False
        self.corrupt: RecordCorrupt | None = None
        self._closing = False
        self._reader = FrameReader()
        self._transport: asyncio.WriteTransport | None = None
        self._attempt: Attempt | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._answer: asyncio.Future[Done | Failed | None] | None = None
        self._noting: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            # Why here, on the loop's own thread: the kernel kills the child when the thread that started it ends.
            # Why a group of its own: Ctrl+C goes to the whole group in front, and killing the group ends what a task
            # has started too.
            self._process = subprocess.Popen(
                [
                    *(_find_python(), "-c", PROGRAM),
                    *(str(theirs.fileno()), str(os.getpid())),
                    *sys.path,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
            stack.pop_all()
        self._socket = ours
        self.pid = self._process.pid
        self._entry = census.add(Kind.PROCESS, f"job process {self.pid}", "worker")
        self._oom_kills = count_oom_kills()
        self._pidfd = -1
        if hasattr(os, "pidfd_open"):
            # A process that may open no more files is waited for as on systems without such a descriptor.
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(self.pid)
                self._loop.add_reader(self._pidfd, self._reap)

    async def connect(self, locations: list[tuple[str, Location]], limit_bytes: int) -> None:
        """Open the way to the child and wait until it is ready; cancelling kills it.

        Args:
            locations: Name and location of each task that it may have to run.
            limit_bytes: Largest result that it may send.

        Raises:
            ProcessDied: It ended before it was ready, or was not ready in time and was killed.
        """
        try:
            await self._loop.create_unix_connection(lambda: self, sock=self._socket)
            self._send(Begin(list(sys.argv), limit_bytes, locations))
            async with asyncio.timeout(START_TIMEOUT):
                await asyncio.wait({self._ready, self.gone}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            self.kill()
            text = f"child process {self.pid} was not ready within {START_TIMEOUT:g} s, and was killed"
            raise ProcessDied(text + ". Make the modules of its tasks faster to import.") from error
        except BaseException:
            self.kill()
            if self._transport is None:
                self._socket.close()
                self._await_end()
            raise
        if self.gone.done():
            raise ProcessDied(f"while it started, {self.end_text()}", code=self.code)

    @property
    def usable(self) -> bool:
        """Whether it can be given a job."""
        if self.killed or self._closing or self.gone.done() or self._transport is None:
            return False
        # Why: an idle child may have been killed from outside a moment ago, before the loop could hear of it.
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        return False

    async def run(self, call: Call, attempt: Attempt) -> Done | Failed | None:
        """Run a job and return what became of it; None when the process ended before it said so.

        Cancelling the wait leaves the job running: kill the process then.
        """
        self._attempt = attempt
        self._answer = self._loop.create_future()
        try:
            self._send(call)
            return await self._answer
        finally:
            self._attempt = self._answer = None

    def close(self) -> None:
        """Hang up, upon which it ends by itself."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
        else:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL to it and to what its jobs have started; nothing that it still says counts."""
        self.killed = True
        self._kill_group()

    def end_text(self) -> str:
        """Say how it ended, and what to do about that."""
        code = self._process.returncode
        what = f"child process {self.pid}"
        if code is None or code >= 0:
            return f"{what} ended with exit status {code}. The task called os._exit, or its standard error says why."
        try:
            number = signal.Signals(-code)
        except ValueError:
            return f"{what} was killed by signal {-code}."
        text = f"{what} was killed by {number.name}"
        if number is signal.SIGKILL:
            if count_oom_kills() > self._oom_kills:
                return text + " by the kernel: the memory of its control group ran out. Raise its limit, or do less."
            return text + ", not by its worker. The kernel does so when memory runs out: its log says whether it did."
        if number in _CRASHES:
            return text + ". Native code crashed; its standard error says in which function."
        return text + "."

    @property
    def code(self) -> int | None:
        """Exit status, or the negative number of the signal that ended it; None while it runs."""
        return self._process.returncode

    # What the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to the child."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Act on what the child says."""
        if self.killed:
            return
        try:
            for message in self._reader.feed(data):
                self._hear(message)
        except RecordCorrupt as error:
            self.corrupt = error
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """Know that the child ends, or cannot be heard any more and must."""
        del exc
        if not self._closing:
            self._kill_group()
        self._await_end()

    def _hear(self, message: Message) -> None:
        if isinstance(message, Ready):
            if not self._ready.done():
                self._ready.set_result(None)
        elif isinstance(message, Note):
            self._noting = self._census.create_task(self._note(message), name="note of a job process", owner="worker")
        elif isinstance(message, (Done, Failed)):
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(message)
        else:
            raise RecordCorrupt(f"a child process sent {type(message).__name__}, which only a worker sends.")

    async def _note(self, note: Note) -> None:
        attempt = self._attempt
        try:
            if attempt is None:
                raise UsageError(
                    "the job has ended, so that nothing can be noted of it. Note it before the task returns."
                )
            if note.line is None:
                await attempt.progress(note.percent, note.text)
            else:
                await attempt.log(note.line)
        except HeadraceError as error:
            self._send(Noted(type(error).__name__, str(error)))
        else:
            self._send(Noted())

    def _send(self, message: Message) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(message))

    def _await_end(self) -> None:
        """Without a descriptor of the process, wait for its end in a thread; the process ends now."""
        if self._pidfd < 0 and not self.gone.done():
            self._ending = self._census.create_task(self._wait(), name="end of a job process", owner="worker")

    async def _wait(self) -> None:
        _ = await self._census.in_thread(self._process.wait, name=f"await the end of {self.pid}", owner="worker")
        self._reap()

    def _reap(self) -> None:
        if self._pidfd >= 0:
            # The process is a zombie until the next line, so that its group is still its own.
            self._kill_group()
        if self.gone.done() or self._process.poll() is None:
            return
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        if self._transport is not None:
            self._transport.abort()
        if self._noting is not None:
            self._noting.cancel()
        self._entry.close()
        self.gone.set_result(None)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        self._ended(self)

    def _kill_group(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _find_python() -> str:
    """Locate the interpreter; in a program that embeds Python, `sys.executable` is that program."""
    for path in (sys.executable, f"{sys.base_exec_prefix}/bin/python3"):
        if path and Path(path).name.startswith(("python", "pypy")):
            return path
    raise FileNotFoundError(f"{sys.executable!r} is no Python interpreter, and none is below {sys.base_exec_prefix}")
