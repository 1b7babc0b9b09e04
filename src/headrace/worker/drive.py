"""Drive a coroutine inside another task: in a context of its own, with control over what is raised in it.

A slot is one asyncio task that runs many jobs, one after another. A job whose coroutine never waits costs no task, no
timer and no pass of the loop; one that waits is driven by `Rest` inside the slot's task, so that everything that asks
for the current task (timeouts, task groups) works as usual.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

from headrace.context import running
from headrace.errors import JobTimeout

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Coroutine, Generator

    from headrace.worker.attempt import Attempt


def first_step(attempt: Attempt, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Make the attempt the current job and run its coroutine up to its first wait; call it in the job's context."""
    running.set(attempt)
    return coroutine.send(None)


class Watch(Protocol):
    """Is told of steps that kept the loop from everything else."""

    def stalled(self, attempt: Attempt, seconds: float) -> None:
        """Report a step of a coroutine that ran for long without waiting."""
        ...


class Rest:
    """The rest of a coroutine after its first wait, to be awaited in the slot's task.

    A cancellation of the slot's task reaches the coroutine as `JobTimeout` when the attempt's `stop` says 'timeout', as
    CancelledError otherwise. Once the attempt is marked `ended`, the coroutine is closed, whatever it does.
    """

    __slots__ = ("_attempt", "_context", "_coroutine", "_limit", "_watch", "_yielded")

    def __init__(
        self, attempt: Attempt, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, yielded: Any,
        watch: Watch, limit: float,
    ) -> None:  # fmt: skip
        self._attempt = attempt
        self._coroutine = coroutine
        self._context = context
        self._yielded = yielded
        self._watch = watch
        self._limit = limit

    def __await__(self) -> Generator[Any, Any, Any]:
        """Drive the coroutine to its end and return its result."""
        attempt, coroutine, run = self._attempt, self._coroutine, self._context.run
        yielded, limit, now = self._yielded, self._limit, time.monotonic
        step: Callable[..., Any]
        while True:
            try:
                value = yield yielded
                step = coroutine.send
            except asyncio.CancelledError as error:
                value = self._translate(attempt, error)
                step = coroutine.throw
            except BaseException as error:  # noqa: BLE001 - whatever the awaited future raises belongs to the coroutine
                value = error
                step = coroutine.throw
            began = now()
            try:
                yielded = run(step, value)
            except StopIteration as stop:
                return stop.value
            finally:
                if now() - began > limit:
                    self._watch.stalled(attempt, now() - began)

    def _translate(self, attempt: Attempt, error: asyncio.CancelledError) -> BaseException:
        if attempt.ended:
            # Why: a coroutine that ignores even GeneratorExit is not driven any more, which ends it all the same.
            with contextlib.suppress(RuntimeError):
                self._context.run(self._coroutine.close)
            raise JobTimeout(f"the attempt of '{attempt.task}' did not stop when it was told to, and was ended.")
        if attempt.stop == "timeout":
            text = f"the attempt of '{attempt.task}' ran past its soft timeout"
            return JobTimeout(text + ". Finish now; or raise timeout= of the task.")
        return error
