"""What a task may know and say about the job it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import OptionError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

#: Longest progress text and log line in characters; longer ones are cut.
MAX_TEXT = 1_000


class CurrentJob(Protocol):
    """The job that runs in this context; get it with `current_job()`."""

    @property
    def id(self) -> str:
        """Id of the job."""
        ...

    @property
    def task(self) -> str:
        """Name of its task."""
        ...

    @property
    def queue(self) -> str:
        """Name of its queue."""
        ...

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        ...

    @property
    def fence(self) -> int:
        """A number that grows with each lease of this job: write it beside what you store, and refuse lower ones."""
        ...

    @property
    def deadline(self) -> datetime | None:
        """When the soft timeout strikes (UTC), None without one."""
        ...

    async def progress(self, percent: float, text: str = "") -> None:
        """Note how far the job is.

        Args:
            percent: 0 to 100.
            text: What it does now, at most `MAX_TEXT` characters; the rest is cut.

        Raises:
            OptionError: The percentage is out of range.
            LeaseLost: This worker does not hold the job any more.
            UsageError: The task runs in a thread or process; use `progress_sync`.
        """
        ...

    async def log(self, line: str) -> None:
        """Add a line to the log of the job: at most `MAX_TEXT` characters a line, the latest 200 lines are kept."""
        ...

    def progress_sync(self, percent: float, text: str = "") -> None:
        """Do what `progress` does, from a task that runs in a thread."""
        ...

    def log_sync(self, line: str) -> None:
        """Do what `log` does, from a task that runs in a thread."""
        ...

    def follow(self, task: Any, *args: Any, **kwargs: Any) -> str:
        """Enqueue a job of the same queue when, and only when, this one completes: both are one atomic transition.

        Args:
            task: A task, or a task with options from `using(...)`.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The id of the job that will be enqueued.

        Raises:
            ArgumentError: The arguments do not fit.
            OptionError: The task belongs to another queue.
        """
        ...


running: ContextVar[CurrentJob] = ContextVar("headrace_current_job")


def current_job() -> CurrentJob:
    """Return the job that runs in this context.

    Raises:
        UsageError: No job runs here.
    """
    job = running.get(None)
    if job is None:
        raise UsageError("current_job() was called outside of a job. Call it inside a task that a worker runs.")
    return job


def check_progress(percent: float, text: str) -> tuple[float, str]:
    """Return valid progress.

    Raises:
        OptionError: The percentage is no number from 0 to 100.
    """
    number: object = percent
    if not isinstance(number, (int, float)) or not 0 <= number <= 100:  # noqa: PLR2004 - per cent
        raise OptionError(f"progress of {percent!r}: expected a number from 0 to 100.")
    return float(number), str(text)[:MAX_TEXT]
