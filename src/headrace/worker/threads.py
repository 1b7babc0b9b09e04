"""A bounded pool of threads for plain functions, whose results come back to the loop in batches.

Measured: a job that does nothing takes about 0.03 ms, where a coroutine takes 0.01 ms; `python benchmarks/executors.py`
prints both (2 cores).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import logging
import queue
import threading
import time
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from headrace.census import Kind
from headrace.errors import JobError, JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census, Entry
    from headrace.worker.attempt import Attempt

logger = logging.getLogger(__name__)


class _State(Enum):
    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()
    #: Given up before a thread took it; the thread that meets it goes on to the next.
    DROPPED = auto()
    #: Given up while it ran; its thread is lost until it returns.
    LOST = auto()


class _Call:
    """One function to run, and the future that ends when there is something to hear of it."""

    __slots__ = (
        "arguments", "attempt", "context", "error", "function", "future", "keywords", "result", "state", "struck",
        "thread",
    )  # fmt: skip

    def __init__(
        self, attempt: Attempt, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any],
        future: asyncio.Future[None],
    ) -> None:  # fmt: skip
        self.attempt = attempt
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.context = contextvars.copy_context()
        self.future = future
        self.state = _State.WAITING
        self.thread = 0
        self.struck: type[BaseException] | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        """Return the result, or raise what the function raised."""
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            if self.struck is not None and isinstance(error, self.struck) and not error.args:
                # Why: only a class can be raised in another thread, so that it arrives without a text.
                what = "ran past its soft timeout" if self.struck is JobTimeout else "was cancelled or its worker stops"
                text = f"the attempt of '{self.attempt.task}', in a thread, {what}. Finish now"
                error.args = (text + ("; or raise timeout= of the task." if self.struck is JobTimeout else "."),)
            if isinstance(error, KeyboardInterrupt):
                # Why: on the loop it would mean Ctrl-C and stop the program; in a thread it is the task's own.
                text = f"task '{self.attempt.task}' raised KeyboardInterrupt in a thread, where no key was pressed"
                raise JobError(text + ". Raise another exception.") from error
            raise error
        finally:
            # Why: the traceback holds this frame, and the frame the error: a cycle that only the collector would end.
            del error


class Threads:
    """Run plain functions in at most `maximum` threads, started when they are needed.

    A thread cannot be ended from outside. A call that is given up keeps its thread until it returns; such a thread is
    replaced, up to `maximum` more, so that a task that hangs does not stop the others. All threads are daemons: one
    that hangs in C code does not keep the process from exiting.

    Args:
        census: Where the threads are entered.
        maximum: Threads, 1..1000.
        name: How the names of the threads begin.
    """

    def __init__(self, census: Census, *, maximum: int, name: str) -> None:
        self._census = census
        self._maximum = maximum
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._done: deque[_Call] = deque()
        self._told = False
        self._threads: dict[threading.Thread, Entry] = {}
        self._started_total = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # Invariant: _open threads run no call, _waiting calls have no thread, _lost threads run a call given up.
        self._lock = threading.Lock()
        self._open = 0
        self._waiting = 0
        self._lost = 0

    @property
    def lost(self) -> int:
        """Threads that still run a call that was given up."""
        return self._lost

    async def run(
        self, attempt: Attempt, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Run a function in a thread, in a copy of this context, and return its result; waits for a free thread.

        The attempt's timeouts begin when a thread takes the call. While it runs, `attempt.interrupt` raises an
        exception class in the thread at its next Python instruction; a thread that is inside C code ends that first.
        Cancelling gives the call up: one that still waits is never run, and the thread of one that runs is replaced.

        Raises:
            JobError: There is no thread, and none can be started.
        """
        loop = self._loop = asyncio.get_running_loop()
        call = _Call(attempt, function, arguments, keywords, loop.create_future())
        attempt.waits = True
        attempt.interrupt = functools.partial(self._interrupt, call)
        with self._lock:
            self._waiting += 1
            self._add_threads()
            if not self._threads:
                self._drop(call)
                raise JobError("no thread can be started for the attempt. Lower HEADRACE_THREADS or raise `ulimit -u`.")
        self._calls.put(call)
        try:
            await call.future
        except BaseException:
            self._give_up(call)
            raise
        finally:
            attempt.interrupt = None
            attempt.waits = False
        return call.outcome()

    def close(self, timeout: float) -> list[str]:
        """End idle threads and wait for the busy ones; blocks.

        Args:
            timeout: Longest wait for all of them together, seconds.

        Returns:
            The names of the threads that did not end in time; each ends with its call, and is in the census until then.
        """
        deadline = time.monotonic() + timeout
        self._closed = True
        self._calls.put(None)
        threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive()]

    # On the loop

    def _add_threads(self) -> None:
        """Start threads for calls that wait, within the bound; called with the lock held."""
        while self._waiting > self._open and len(self._threads) < self._maximum + min(self._lost, self._maximum):
            name = f"{self._name}-{self._started_total}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads[thread] = self._census.add(Kind.THREAD, name, "worker")
            try:
                thread.start()
            except RuntimeError:
                self._threads.pop(thread).close()
                logger.exception("thread cannot be started", extra={"of": self._name, "threads": len(self._threads)})
                return
            self._started_total += 1
            self._open += 1

    def _interrupt(self, call: _Call, error: type[BaseException]) -> None:
        with self._lock:
            if call.state is _State.RUNNING and call.struck is None:
                call.struck = error
                _raise_in(call.thread, error)
            elif call.state is _State.WAITING:
                self._drop(call)
                call.error = error(f"the attempt of '{call.attempt.task}' was stopped while it waited for a thread.")
                if not call.future.done():
                    call.future.set_result(None)

    def _give_up(self, call: _Call) -> None:
        with self._lock:
            if call.state is _State.WAITING:
                self._drop(call)
            elif call.state is _State.RUNNING:
                call.state = _State.LOST
                self._lost += 1
                self._add_threads()

    def _drop(self, call: _Call) -> None:
        call.state = _State.DROPPED
        self._waiting -= 1
        # Why: the call stays in the queue until a thread meets it, which may be long; it must not hold memory.
        call.arguments, call.keywords = (), {}

    def _deliver(self) -> None:
        with self._lock:
            self._told = False
            calls, self._done = self._done, deque()
        for call in calls:
            if not call.future.done():
                call.future.set_result(None)

    # In the threads

    def _work(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                if self._perform(call) and not self._hand_in(call):
                    return
                del call
            # Each thread that reads the end passes it on to the next.
            self._calls.put(None)
        finally:
            self._threads.pop(threading.current_thread()).close()

    def _take(self, call: _Call) -> bool:
        with self._lock:
            if call.state is not _State.WAITING:
                return False
            call.state = _State.RUNNING
            call.thread = threading.get_ident()
            self._waiting -= 1
            self._open -= 1
            call.attempt.begin()
            return True

    def _perform(self, call: _Call) -> bool:
        """Run a call, and let nothing that was raised from outside reach the code after it; False for a dropped one."""
        try:
            if not self._take(call):
                return False
            try:
                call.result = call.context.run(call.function, *call.arguments, **call.keywords)
            except BaseException as error:  # noqa: BLE001 - the edge of a job: whatever it raises is recorded
                call.error = error
            self._end(call)
        except BaseException as error:  # noqa: BLE001 - an interrupt that struck before or after the function
            # Why: a call is interrupted at most once, so that nothing strikes here any more.
            call.error = call.error or error
            self._end(call)
        return True

    def _end(self, call: _Call) -> None:
        with self._lock:
            if call.state is _State.RUNNING:
                call.state = _State.ENDED
        if call.struck is not None:
            # Nothing is raised any more from here on; what was, and has not struck yet, is taken back.
            _raise_in(call.thread, None)

    def _hand_in(self, call: _Call) -> bool:
        """Have the loop told of a call that ended; False when its thread is one too many."""
        with self._lock:
            stays = True
            if call.state is _State.LOST:
                self._lost -= 1
                stays = not self._closed and len(self._threads) <= self._maximum + min(self._lost, self._maximum)
            self._open += stays
            self._done.append(call)
            tell = not self._told
            self._told = True
        loop = self._loop
        if tell and loop is not None:
            # A loop that has closed meanwhile has nobody left to hear of it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._deliver)
        return stays


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    # Source: CPython C API, PyThreadState_SetAsyncExc: raises at the next bytecode boundary; NULL takes it back.
    what = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)
