"""One worker process as its supervisor sees it: started as a fresh interpreter, heard, signalled, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from headrace.census import Kind
from headrace.worker.report import (
    ASK_FIGURES,
    ASK_HEALTH,
    ASK_LIFE,
    ASK_QUEUES,
    HARD,
    REPORT_VARIABLE,
    Answered,
    Failed,
    Lives,
    Measured,
    MessageReader,
    Pressed,
    Queues,
    Started,
    Stopped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.census import Census
    from headrace.worker.report import Message, Reply

_CHUNK_BYTES: Final = 65_536
#: The system ends a killed process in far less, seconds.
_END_TIMEOUT: Final = 5.0


class Child:
    """A worker process.

    Args:
        command: Program and arguments.
        environment: Variables beside those of this process.
        census: Where the process is counted until it is reaped.
        changed: Called when it started.
        asked: Called when it asks for another process in its place.

    Raises:
        OSError: The system starts no more processes, or there is no such program.

    Attributes:
        pid: Its process id.
        started: Set when it says that its worker reserves jobs.
        ended: Set when it was reaped.
        retiring: It was told to stop.
        killed: It was sent SIGKILL by its supervisor.
        worker: Id of its worker, once it said so.
        grace: Time that it gives running jobs, seconds, as it said.
        stopped: What it said it did, if it said so.
        failed: Why it cannot run, if it said so.
        pressed: The last that it said of its memory, if it said anything.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        census: Census,
        changed: Callable[[Child], None],
        asked: Callable[[Child], None],
    ) -> None:
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.retiring = False
        self._hard = False
        self.killed = False
        self.worker = ""
        self.grace = 0.0
        self.stopped: Stopped | None = None
        self.failed: Failed | None = None
        self.pressed: Pressed | None = None
        self.began = time.monotonic()
        self.started_at = 0.0
        self.ended_at = 0.0
        self._changed = changed
        self._asked = asked
        self._reader = MessageReader()
        #: Questions that it has not answered, at most one of each word.
        self._questions: dict[bytes, asyncio.Future[Reply | None]] = {}
        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(0)
        with theirs, contextlib.ExitStack() as stack:
            stack.callback(self._connection.close)
            # Why a group of its own: Ctrl+C at a terminal goes to the whole group in front; while it starts, a child
            # would end with a traceback.
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment, REPORT_VARIABLE: str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
            stack.pop_all()
        self.pid = self._process.pid
        self._entry = census.add(Kind.PROCESS, f"worker process {self.pid}", "supervisor")
        asyncio.get_running_loop().add_reader(self._connection, self._hear)

    def stop(self, *, hard: bool = False) -> None:
        """Ask the worker to stop, by SIGTERM, or to stop hard, over the socket; asking the same again does nothing."""
        if not self.retiring:
            self.retiring = True
            self._process.send_signal(signal.SIGTERM)
        if hard and not self._hard:
            self._hard = True
            with contextlib.suppress(OSError):
                self._connection.send(HARD)

    async def ask(self, word: bytes, timeout: float) -> Reply | None:
        """Ask how it is.

        Args:
            word: ASK_LIFE, ASK_HEALTH, ASK_FIGURES or ASK_QUEUES.
            timeout: Longest wait in seconds.

        Returns:
            What it said; None when it ended, or did not answer in time. The question stays open then, and the next
            call waits for its answer, so a process that hangs is not sent more and more of them.
        """
        if word not in self._questions:
            try:
                self._connection.send(word)
            except OSError:
                return None
            self._questions[word] = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._questions[word]), timeout)
        return None

    def kill(self) -> None:
        """Send SIGKILL."""
        self.killed = True
        self._process.kill()

    def end(self) -> None:
        """Kill and reap it, here and now."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_TIMEOUT)
        self.reap()

    def reap(self) -> bool:
        """Take note of the end of the process; False while it runs."""
        if self.ended.is_set() or self._process.poll() is None:
            return self.ended.is_set()
        self.ended_at = time.monotonic()
        self._hear()
        self._hang_up()
        self._entry.close()
        self.ended.set()
        return True

    async def starts(self, timeout: float) -> bool:
        """Wait until the child started; False when it ended before, or did not start in time (seconds)."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.started, self.ended)]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.started.is_set() and not self.ended.is_set()

    @property
    def code(self) -> int | None:
        """Exit code, or the negative number of the signal that ended it; None while it runs."""
        return self._process.returncode

    @property
    def seconds(self) -> float:
        """Time that its worker ran, seconds; 0 when it never started."""
        if self.stopped is not None:
            return self.stopped.seconds
        return (self.ended_at or time.monotonic()) - self.started_at if self.started_at else 0.0

    def _hear(self) -> None:
        while True:
            try:
                data = self._connection.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._hang_up()
                return
            for message in self._reader.feed(data):
                self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case Started():
                self.worker = message.worker
                self.grace = message.grace
                self.started_at = time.monotonic()
                self.started.set()
                self._changed(self)
            case Stopped():
                self.stopped = message
            case Failed():
                self.failed = message
            case Pressed():
                self.pressed = message
                if message.replace:
                    self._asked(self)
            case Lives():
                self._answer(ASK_LIFE, message)
            case Answered():
                self._answer(ASK_HEALTH, message)
            case Measured():
                self._answer(ASK_FIGURES, message)
            case Queues():
                self._answer(ASK_QUEUES, message)

    def _answer(self, word: bytes, message: Reply | None) -> None:
        question = self._questions.pop(word, None)
        if question is not None and not question.done():
            question.set_result(message)

    def _hang_up(self) -> None:
        for word in list(self._questions):
            self._answer(word, None)
        with contextlib.suppress(OSError, ValueError):
            asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()


def describe_end(code: int) -> str:
    """Say in words how a process ended.

    Example:
        >>> describe_end(1), describe_end(-9), describe_end(-250)
        ('exit code 1', 'signal SIGKILL', 'signal 250')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
