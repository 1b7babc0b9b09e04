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


class SoftTimeout(JobTimeout, asyncio.CancelledError):
    """A `JobTimeout` that is also a cancellation, as it is raised inside a coroutine.

    Why: task groups, `wait_for` and their like end what they started when they are cancelled, and let any other
    exception that strikes their own wait leave it running. To users it is the public class.
    """

    __module__ = JobTimeout.__module__
    __qualname__ = JobTimeout.__qualname__


class Rest:
    """The rest of a coroutine after its first wait, to be awaited in the slot's task.

    When the attempt's `stop` says 'timeout', one cancellation of the slot's task reaches the coroutine as `JobTimeout`;
    any other arrives as the CancelledError it is, so that timeouts and task groups inside the task work. Once the
    attempt is marked `ended`, the coroutine is closed, whatever it does.
    """

    __slots__ = ("_attempt", "_context", "_coroutine", "_limit", "_told", "_watch", "_yielded")

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
        self._told = False

    def __await__(self) -> Generator[Any, Any, Any]:
        """Drive the coroutine to its end and return its result."""
        coroutine, run = self._coroutine, self._context.run
        yielded, limit, now = self._yielded, self._limit, time.monotonic
        step: Callable[..., Any]
        while True:
            try:
                value = yield yielded
                step = coroutine.send
            except GeneratorExit:
                # The slot's own task is being closed, and the job with it.
                self._close()
                raise
            except BaseException as error:  # noqa: BLE001 - whatever the awaited future raises belongs to the coroutine
                value = self._translate(error)
                step = coroutine.throw
            began = now()
            try:
                yielded = run(step, value)
            except StopIteration as stop:
                return stop.value
            except GeneratorExit as error:
                # Why: let through, it would mean that the slot is being closed.
                raise RuntimeError(f"task '{self._attempt.task}' raised GeneratorExit") from error
            finally:
                if now() - began > limit:
                    self._watch.stalled(self._attempt, now() - began)

    def _translate(self, error: BaseException) -> BaseException:
        attempt = self._attempt
        if attempt.ended:
            self._close()
            text = f"the attempt of '{attempt.task}' did not stop when it was told to, and was ended"
            raise JobTimeout(text + ". Let JobTimeout and CancelledError pass, or raise hard_timeout= of the task.")
        if attempt.stop == "timeout" and not self._told and isinstance(error, asyncio.CancelledError):
            self._told = True
            # Why: the task may clean up and return, so that its asyncio task must not count as being cancelled.
            if attempt.slot is not None:
                attempt.slot.uncancel()
            text = f"the attempt of '{attempt.task}' ran past its soft timeout"
            return SoftTimeout(text + ". Finish now; or raise timeout= of the task.")
        return error

    def _close(self) -> None:
        # Why: a coroutine that ignores even GeneratorExit is not driven any more, which ends it all the same; and what
        # its cleanup raises comes too late to be the reason.
        with contextlib.suppress(Exception, asyncio.CancelledError, SystemExit):
            self._context.run(self._coroutine.close)
