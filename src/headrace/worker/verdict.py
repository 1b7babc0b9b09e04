"""What becomes of a job whose attempt raised: pure decisions, apart from everything that carries them out."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from headrace.errors import JobTimeout, ProcessDied
from headrace.record import Failure
from headrace.retry import Retry

if TYPE_CHECKING:
    from types import TracebackType

    from headrace.options import TaskOptions

#: Characters kept of an error's class name, message and traceback.
MAX_CLASS, MAX_MESSAGE, MAX_TRACEBACK = 200, 2_000, 8_000
#: Longest wait of a job that no worker could read or whose task none knew, seconds.
MAX_DEFER: Final = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a failed job: try it again after `delay` seconds, or bury it."""

    verb: Literal["retry", "dead"]
    delay: float = 0.0
    reason: str = ""


def judge(options: TaskOptions, attempts: int, attempt: int, age: float, error: BaseException) -> Verdict:
    """Decide whether a failed attempt is followed by another.

    Args:
        options: Options of the task.
        attempts: How often the job is tried at most.
        attempt: Number of the attempt that failed, from 1.
        age: Seconds since the job was enqueued.
        error: What the attempt raised.

    Example:
        >>> from headrace.options import TaskOptions
        >>> from headrace.retry import Fixed
        >>> judge(TaskOptions(name="t", backoff=Fixed(2.0)), 3, 1, 0.5, ValueError())
        Verdict(verb='retry', delay=2.0, reason='')
    """
    if attempt >= attempts:
        return Verdict("dead")
    if isinstance(error, Retry):
        delay = error.after if error.after is not None else options.backoff.delay(attempt)
    elif isinstance(error, (JobTimeout, ProcessDied, *options.retry_on)):
        delay = options.backoff.delay(attempt)
    else:
        return Verdict("dead", reason="not listed in retry_on")
    if options.max_age is not None and age + delay > options.max_age:
        return Verdict("dead", reason="older than max_age")
    return Verdict("retry", delay)


def defer_delay(deferrals: int) -> float:
    """Return how long a job waits that this worker must leave to others: 1 s, 2 s, 4 s ... at most `MAX_DEFER`.

    Example:
        >>> [defer_delay(n) for n in (0, 1, 5, 50)]
        [1.0, 2.0, 32.0, 60.0]
    """
    return min(MAX_DEFER, 2.0 ** min(deferrals, 10))


def describe_failure(error: BaseException, attempt: int, at_ms: int) -> Failure:
    """Return what is kept of an error, cut to its bounds; of a long traceback the end, where the cause stands."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in {"builtins", "headrace.errors"}
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    remote = getattr(error, "headrace_traceback", None)
    text = remote or "".join(traceback.format_exception(kind, error, _own_frames(error), limit=-30))
    remote_name = getattr(error, "headrace_class", None)
    return Failure(
        attempt,
        at_ms,
        _writable(remote_name or name)[:MAX_CLASS],
        _writable(_message(error))[:MAX_MESSAGE],
        _writable(text)[-MAX_TRACEBACK:],
    )


def _own_frames(error: BaseException) -> TracebackType | None:
    """Return the traceback from the first frame that is not the worker's; all of it when there is none."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("headrace.worker."):
        frames = frames.tb_next
    return frames or error.__traceback__


def _writable(text: str) -> str:
    # Why: a message may hold half a character, such as the name of a file that is no UTF-8, which no record can hold.
    return text.encode("utf-8", "backslashreplace").decode()


def _message(error: BaseException) -> str:
    told = getattr(error, "headrace_message", None)
    if isinstance(told, str):
        return told
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a task's exception may be unable to print itself; that is recorded
        return f"<{type(error).__qualname__} whose message raised {type(broken).__qualname__}>"
