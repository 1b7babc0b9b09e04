"""A bounded pool of threads for plain functions, whose results come back to the loop in batches."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from headrace.census import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census, Entry
    from headrace.worker.attempt import Attempt


class _Call:
    """One function to run, and the future that its result goes to."""

    __slots__ = ("arguments", "context", "error", "function", "future", "ident", "keywords", "result")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any],
        context: contextvars.Context, future: asyncio.Future[Any],
    ) -> None:  # fmt: skip
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.context = context
        self.future = future
        self.ident: int | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def interrupt(self, error: type[BaseException]) -> None:
        """Raise an exception class in the thread that runs the call; a call that has not begun raises at once."""
        if self.ident is not None:
            # Source: CPython C API, PyThreadState_SetAsyncExc: raises at the thread's next bytecode boundary.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(error))
        elif not self.future.done():
            self.future.set_exception(error("The call had not begun yet."))


class Threads:
    """Run plain functions in at most `maximum` threads, started when they are needed.

    A thread cannot be ended from outside. A call that is given up keeps its thread until it returns; such a thread is
    replaced, up to `maximum` more, so that a task that hangs does not stop the others.
    """

    def __init__(self, census: Census, *, maximum: int, name: str) -> None:
        self._census = census
        self._maximum = maximum
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._done: deque[_Call] = deque()
        self._told = False
        self._idle = 0
        self._lost = 0
        self._threads: dict[threading.Thread, Entry] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def lost(self) -> int:
        """Threads that still run a call that was given up."""
        return self._lost

    async def run(
        self, attempt: Attempt, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Run a function in a thread, in a copy of this context, and return its result; waits for a free thread.

        While it runs, `attempt.interrupt` raises an exception class in the thread at its next Python instruction; a
        thread that is inside a C call ends that first. Cancelling gives the call up: its thread is replaced.
        """
        loop = self._loop = asyncio.get_running_loop()
        call = _Call(function, arguments, keywords, contextvars.copy_context(), loop.create_future())
        with self._lock:
            if self._idle <= 0 and len(self._threads) < self._maximum + min(self._lost, self._maximum):
                self._start()
            else:
                self._idle -= 1
        attempt.interrupt = call.interrupt
        self._calls.put(call)
        try:
            return await call.future
        except (asyncio.CancelledError, GeneratorExit):
            self._lost += 1
            raise

    def close(self, timeout: float) -> list[str]:
        """End idle threads and wait for the busy ones; returns the names of those that did not end in time."""
        for _ in self._threads:
            self._calls.put(None)
        left: list[str] = []
        for thread in list(self._threads):
            thread.join(timeout)
            if thread.is_alive():
                left.append(thread.name)
        return left

    def _start(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads[thread] = self._census.add(Kind.THREAD, name, "worker")
        thread.start()

    def _work(self) -> None:
        thread = threading.current_thread()
        ident = threading.get_ident()
        try:
            while True:
                call = self._calls.get()
                if call is None:
                    return
                call.ident = ident
                try:
                    call.result = call.context.run(call.function, *call.arguments, **call.keywords)
                except BaseException as error:  # noqa: BLE001 - the edge of a job: whatever it raises is recorded
                    call.error = error
                call.ident = None
                with self._lock:
                    self._idle += 1
                    self._done.append(call)
                    tell = not self._told
                    self._told = True
                del call
                loop = self._loop
                if tell and loop is not None and not loop.is_closed():
                    loop.call_soon_threadsafe(self._deliver)
        finally:
            entry = self._threads.pop(thread, None)
            if entry is not None:
                entry.close()

    def _deliver(self) -> None:
        with self._lock:
            self._told = False
            calls, self._done = self._done, deque()
        for call in calls:
            if call.future.done():
                self._lost = max(0, self._lost - 1)
            elif call.error is not None:
                call.future.set_exception(call.error)
            else:
                call.future.set_result(call.result)
