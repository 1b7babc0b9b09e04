"""What runs in a child process of a worker: one job of a `process=True` task after another, until the worker hangs up.

The child does not outlive its worker: it ends when its socket does, and on Linux the kernel kills it with the worker
(PR_SET_PDEATHSIG), also in the middle of a job. Elsewhere a job that runs then is finished first, and not recorded.
What a task has started itself ends with its child whenever the worker lives to see to it.

SIGINT and SIGTERM do nothing here: when a whole group of processes is told to stop, the worker decides what becomes of
running jobs. What the task starts itself gets the usual signals.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Never

import msgspec

from headrace import errors
from headrace.arguments import Signature
from headrace.context import MAX_TEXT, check_progress, running
from headrace.errors import LeaseLost, RecordTooLarge, RemoteError, UsageError
from headrace.record import encode_value
from headrace.worker.attempt import add_follower
from headrace.worker.ceiling import ceiling
from headrace.worker.frames import (
    LENGTH_BYTES,
    Begin,
    Call,
    Done,
    Failed,
    Follower,
    Location,
    Message,
    Note,
    Noted,
    Ready,
    length_of,
    pack,
    unpack,
)
from headrace.worker.location import resolve
from headrace.worker.remote import describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

#: Number of the option in linux/prctl.h.
PR_SET_PDEATHSIG: Final = 1


class Worker:
    """The worker at the other end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._turn = threading.Lock()
        self._over = True

    def receive(self) -> Message | None:
        """Wait for the next message; None when the worker has hung up."""
        try:
            head = self._stream.read(LENGTH_BYTES)
            payload = self._stream.read(length_of(head)) if len(head) == LENGTH_BYTES else b""
        except ConnectionError:
            return None
        return unpack(payload) if payload else None

    def send(self, message: Message) -> bool:
        """Send a message; False when the worker has hung up. Raises RecordTooLarge."""
        frame = pack(message)
        try:
            self._connection.sendall(frame)
        except ConnectionError:
            return False
        return True

    def begin(self) -> None:
        """Let notes pass: a job runs."""
        self._over = False

    def end(self) -> None:
        """Let no more notes pass; one that is under way is answered first."""
        with self._turn:
            self._over = True

    def note(self, note: Note) -> None:
        """Have the worker note something of the job, and wait until it has; any thread may call.

        Raises:
            UsageError: The job has ended.
            LeaseLost: The worker has ended.
            HeadraceError: What the worker says went wrong.
        """
        with self._turn:
            if self._over:
                raise UsageError(
                    "the job has ended, so that nothing can be noted of it. Note it before the task returns."
                )
            answer = self.receive() if self.send(note) else None
        if not isinstance(answer, Noted):
            raise LeaseLost("the worker of this job has ended, so that nothing is recorded. Stop; it is run again.")
        if answer.error:
            raise getattr(errors, answer.error, RemoteError)(answer.message)


class ChildJob:
    """The job that runs in this process. It is the `CurrentJob` of its task."""

    def __init__(self, call: Call, worker: Worker) -> None:
        self.id = call.id
        self.task = call.task
        self.queue = call.queue
        self.attempt = call.attempt
        self.fence = call.fence
        self.deadline = None if call.deadline is None else datetime.fromtimestamp(call.deadline, UTC)
        self.follows: list[Follower] = []
        self._worker = worker

    async def progress(self, percent: float, text: str = "") -> None:
        """Refuse: nothing in this process can wait for the server."""
        self._refuse(f"progress({percent!r}, {text!r:.40})")

    async def log(self, line: str) -> None:
        """Refuse: nothing in this process can wait for the server."""
        self._refuse(f"log({line!r:.40})")

    def progress_sync(self, percent: float, text: str = "") -> None:
        """Note how far the job is; see `CurrentJob.progress`."""
        number, shown = check_progress(percent, text)
        self._worker.note(Note(number, shown))

    def log_sync(self, line: str) -> None:
        """Add a line to the log of the job; see `CurrentJob.log`."""
        self._worker.note(Note(line=str(line)[:MAX_TEXT]))

    def follow(self, task: Any, *args: Any, **kwargs: Any) -> str:
        """Enqueue a job when this one completes; see `CurrentJob.follow`."""
        return add_follower(self, self.follows, task, args, kwargs)

    def _refuse(self, call: str) -> Never:
        raise UsageError(f"job {self.id} runs in a child process: await {call} is not possible. Use the _sync method.")

    def __repr__(self) -> str:
        """Name the job and the attempt."""
        return f"<job {self.id} of {self.task}, attempt {self.attempt}, fence {self.fence}>"


class Jobs:
    """Runs one job after another.

    Args:
        worker: Where they come from.
        limit_bytes: Largest result.
    """

    def __init__(self, worker: Worker, limit_bytes: int) -> None:
        self._worker = worker
        self._limit_bytes = limit_bytes
        # Bound: the tasks of the app.
        self._functions: dict[tuple[str, Location], tuple[Callable[..., Any], Signature]] = {}

    def run(self, call: Call) -> Done | Failed:
        """Run one job and return what became of it; whatever it raises is described."""
        job = ChildJob(call, self._worker)
        self._worker.begin()
        try:
            function, signature = self.find(call.task, call.location)
            arguments = signature.decode_arguments(call.arguments)
            keywords = signature.decode_keywords(call.keywords)
            with ceiling(call.task, call.memory_limit_mb):
                result = contextvars.copy_context().run(_run, job, function, arguments, keywords)
            done = Done(msgspec.Raw(self._encode(call.task, result)), job.follows)
        except BaseException as error:  # noqa: BLE001 - the edge of a job: whatever it raises is recorded
            return describe(_without_own_frames(error))
        else:
            return done
        finally:
            self._worker.end()

    def find(self, task: str, location: Location) -> tuple[Callable[..., Any], Signature]:
        """Return the function of a task and its signature; whatever its import raises is raised."""
        key = (task, location)
        known = self._functions.get(key)
        if known is None:
            function = resolve(location, task)
            known = self._functions[key] = (function, Signature(function, task))
        return known

    def _encode(self, task: str, result: object) -> bytes:
        payload = encode_value(result)
        if len(payload) > self._limit_bytes:
            text = f"the result of task '{task}' takes {len(payload)} bytes: the limit is {self._limit_bytes}"
            raise RecordTooLarge(
                text + ". Store it elsewhere and return its key, or raise HEADRACE_RECORD_LIMIT_BYTES."
            )
        return payload


def _run(job: ChildJob, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    running.set(job)
    return function(*arguments, **keywords)


def _without_own_frames(error: BaseException) -> BaseException:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)


def main() -> None:
    """Run the child; its command line holds the number of the inherited socket and the process id of the worker."""
    fd, worker_pid = int(sys.argv[1]), int(sys.argv[2])
    end_with(worker_pid)
    leave_signals_to_the_worker()
    # Why: a crash in native code then says in which function; without a standard error there is nowhere to say it.
    with contextlib.suppress(RuntimeError, ValueError, OSError):
        faulthandler.enable()
    os.set_inheritable(fd, False)  # noqa: FBT003 - it has no keyword
    with socket.socket(fileno=fd) as connection:
        serve(Worker(connection))


def serve(worker: Worker) -> None:
    """Run the jobs that a worker sends, until it hangs up."""
    begin = worker.receive()
    if not isinstance(begin, Begin):
        return
    sys.argv[:] = begin.argv
    jobs = Jobs(worker, begin.limit_bytes)
    for task, location in begin.locations:
        # Why: the time of the imports is none of the first job's. What fails here fails again, and is told, with a job.
        with contextlib.suppress(BaseException):
            jobs.find(task, location)
    if not worker.send(Ready()):
        return
    while isinstance(call := worker.receive(), Call):
        answer = jobs.run(call)
        for stream in (sys.stdout, sys.stderr):
            # Why: a later job may be killed, and must not take the words of this one with it.
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.flush()
        try:
            going = worker.send(answer)
        except RecordTooLarge as error:
            going = worker.send(describe(error))
        if not going:
            return


def end_with(pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, and end now if its process has."""
    if sys.platform == "linux":
        # Why here and not between fork and exec: there, another thread of the worker may hold a lock of the C library.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != pid:
        sys.exit()


def leave_signals_to_the_worker() -> None:
    """Let SIGINT and SIGTERM do nothing here, and the usual in what this process starts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Why a handler: programs that the task starts would inherit a signal that is ignored.
        signal.signal(number, _do_nothing)
    os.register_at_fork(after_in_child=_take_signals_back)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _take_signals_back() -> None:
    if signal.getsignal(signal.SIGINT) is _do_nothing:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is _do_nothing:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
