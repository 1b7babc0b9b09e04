"""Run a coroutine from synchronous code, and the plain functions that it calls outside of its loop, in the same thread.

A plain task run this way finds what synchronous code expects: no running loop, and the thread of whoever enqueued it,
with that thread's database connection and transaction.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.errors import JobTimeout
from headrace.worker.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from headrace.census import Census
    from headrace.worker.attempt import Attempt

T = TypeVar("T")


class Outside(Threads):
    """Stand in for the threads of a worker: call plain functions between two runs of a private loop.

    Such a call cannot be interrupted; the timeout of its task is looked at when it returns.
    """

    def __init__(self, census: Census) -> None:
        super().__init__(census, maximum=1, name="unused")
        self._outside: list[Callable[[], None]] = []

    def run_until_complete(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on a new loop to its end and return its result; no loop may run in this thread."""
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            loop = runner.get_loop()
            task = loop.create_task(main)
            task.add_done_callback(lambda _: loop.stop())
            while not task.done():
                loop.run_forever()
                calls, self._outside = self._outside, []
                for call in calls:
                    call()
            return task.result()

    async def run(
        self, attempt: Attempt, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Run a function once the loop has stopped, and return its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()
        attempt.interrupt = lambda _: None

        def call() -> None:
            answer: tuple[Any, BaseException | None]
            try:
                answer = context.run(function, *arguments, **keywords), None
            except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - the edge of a job: whatever it raises is recorded
                answer = None, error
            if not future.done():
                future.set_result(answer)

        self._outside.append(call)
        loop.stop()
        result, error = await future
        if error is not None:
            raise error
        if attempt.soft_at and time.monotonic() >= attempt.soft_at:
            raise JobTimeout(f"the attempt of '{attempt.task}' ran past its timeout. Raise timeout= of the task.")
        return result

    def close(self, timeout: float) -> list[str]:
        """Return the threads that did not end: there are none."""
        return []
