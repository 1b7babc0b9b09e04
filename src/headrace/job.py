"""Handles of jobs: status, result, cancel, retry, and why a job is not running yet."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from headrace.errors import JobCancelled, JobFailed, JobNotFound, RecordCorrupt, RecordTooNew, UnknownTask
from headrace.reason import explain
from headrace.record import Outcome, read_outcome
from headrace.store.replies import held_since_ms, worker_of

if TYPE_CHECKING:
    from headrace.arguments import Signature
    from headrace.reason import Reason, Surroundings
    from headrace.record import Failure
    from headrace.store.replies import Found

R = TypeVar("R")


class JobStatus(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    DELAYED = "delayed"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Desk(Protocol):
    """What a handle asks of its app."""

    async def find(self, queue: str, job_id: str) -> Found:
        """Return everything known of a job."""
        ...

    async def outcome(self, queue: str, job_id: str, *, timeout: float | None) -> tuple[str, bytes]:
        """Wait for the end of a job; returns its status and outcome."""
        ...

    async def cancel(self, queue: str, job_id: str) -> str:
        """Cancel a job."""
        ...

    async def retry(self, queue: str, job_id: str) -> str:
        """Put a dead or cancelled job back; returns the queue that it is in now, or an empty text."""
        ...

    async def log_lines(self, queue: str, job_id: str) -> list[str]:
        """Return the log lines of a job."""
        ...

    async def surroundings(self, queue: str, job_id: str, found: Found) -> Surroundings:
        """Look at what stands around a job."""
        ...

    def signature(self, task: str) -> Signature | None:
        """Return the signature of a registered task."""
        ...


@dataclass(frozen=True, slots=True)
class Details:
    """What is known of a job beyond its status. Times are seconds since 1970 by the server's clock.

    Attributes:
        task: Name of its task; empty when its record cannot be read.
        priority: 1..20.
        enqueued_at: When it was accepted.
        attempts: Attempts used so far.
        stalls: How often its worker's lease ran out.
        failures: What its attempts raised: the first and the latest nine.
        progress: Percentage and text of the last report, None before the first.
        due_at: When it is due, if it is delayed.
        ended_at: When it ended, if it has.
        worker: Who holds it, if it is active.
        held_at: Since when, if it is active.
        reason: Why it is dead when no error of its own says so, such as 'stalled'.
        origin: The queue that it came from, if it is in the dead-letter queue of another.
    """

    task: str
    priority: int
    enqueued_at: float | None
    attempts: int
    stalls: int
    failures: tuple[Failure, ...]
    progress: tuple[float, str] | None
    due_at: float | None
    ended_at: float | None
    worker: str | None
    held_at: float | None
    reason: str
    origin: str | None


class Job(Generic[R]):
    """One job, as a handle: what it says may be old until `refresh` is called.

    Attributes:
        id: Unique id.
        queue: Name of its queue.
        task: Name of its task.
    """

    __slots__ = ("_desk", "_details", "_status", "id", "queue", "task")

    def __init__(self, desk: Desk, job_id: str, queue: str, task: str, status: JobStatus) -> None:
        self._desk = desk
        self._status = status
        self._details: Details | None = None
        self.id = job_id
        self.queue = queue
        self.task = task

    @property
    def status(self) -> JobStatus:
        """Status when the job was enqueued or last refreshed."""
        return self._status

    @property
    def details(self) -> Details | None:
        """What the last refresh found; None before the first."""
        return self._details

    @property
    def attempts(self) -> int:
        """Attempts used, as of the last refresh."""
        return self._details.attempts if self._details else 0

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What the attempts raised, as of the last refresh."""
        return self._details.failures if self._details else ()

    @property
    def progress(self) -> tuple[float, str] | None:
        """Percentage and text of the last report, as of the last refresh."""
        return self._details.progress if self._details else None

    async def refresh(self) -> Job[R]:
        """Ask the server where the job stands.

        Returns:
            The same handle.

        Raises:
            JobNotFound: The job does not exist, or it completed and its outcome was not kept.
            ConnectionLost: The server could not be reached.
        """
        found = await self._desk.find(self.queue, self.id)
        if found.status == "missing":
            raise self._missing()
        self._status = JobStatus(found.status)
        self._details = describe(found)
        if self._details.task:
            self.task = self._details.task
        return self

    async def result(self, timeout: float | None = None) -> R:
        """Wait until the job has ended and return its result.

        Args:
            timeout: Longest wait in seconds; None waits as long as the app is open.

        Raises:
            ResultTimeout: The job did not end in time; it goes on.
            JobFailed: The job is dead.
            JobCancelled: The job was cancelled.
            JobNotFound: The job does not exist, or it completed and its outcome was not kept.
            UnknownTask: The job completed and this app has not registered its task.

        Nothing is polled: the worker's completion is pushed to this app. Cancelling the wait leaves the job alone.
        """
        status, outcome = await self._desk.outcome(self.queue, self.id, timeout=timeout)
        if status == "missing":
            raise self._missing()
        self._status = JobStatus(status)
        if status == "completed":
            return self._decode(read_outcome(outcome)) if outcome else None  # type: ignore[return-value]  # a task without a result
        # Why: an app without the task does not know which dead-letter queue to look into.
        with contextlib.suppress(JobNotFound):
            await self.refresh()
        if status == "cancelled":
            raise JobCancelled(f"job {self.id} of task '{self.task}' was cancelled. Enqueue it again, or call retry().")
        raise JobFailed(self._failure_text())

    async def cancel(self) -> bool:
        """Cancel the job: one that waits never runs, one that runs is told to stop.

        Returns:
            True when it was cancelled or its worker was told; False when it had ended already.

        Raises:
            JobNotFound: The job does not exist, or it completed and its outcome was not kept.
        """
        found = await self._desk.find(self.queue, self.id)
        if found.status == "missing":
            raise self._missing()
        answer = await self._desk.cancel(self.queue, self.id)
        if answer == "cancelled":
            self._status = JobStatus.CANCELLED
        return answer in {"cancelled", "asked"} and found.status != "cancelled"

    async def retry(self) -> bool:
        """Put a dead or cancelled job back with all its attempts; False when it is neither.

        A job in a dead-letter queue goes back to the queue that it came from, and so does this handle.
        """
        queue = await self._desk.retry(self.queue, self.id)
        if queue:
            self.queue = queue
            self._status = JobStatus.WAITING
        return bool(queue)

    async def log_lines(self) -> list[str]:
        """Return what the task logged of the job, the oldest line first: the latest 200 lines of the last day."""
        return await self._desk.log_lines(self.queue, self.id)

    async def why(self) -> str:
        """Say in one or two sentences why the job is where it is, and not running yet if it is not."""
        return (await self.reason()).text

    async def reason(self) -> Reason:
        """Return what `why` says, with a stable word for programs; a missing job is a reason too."""
        found = await self._desk.find(self.queue, self.id)
        return explain(found, await self._desk.surroundings(self.queue, self.id, found))

    def _decode(self, outcome: Outcome) -> R:
        signature = self._desk.signature(outcome.task)
        if signature is None:
            text = f"job {self.id} is of task '{outcome.task}', which this app has not registered, so that its result"
            raise UnknownTask(text + " cannot be read. Import the module that defines the task.")
        result: R = signature.decode_result(outcome.result)
        return result

    def _missing(self) -> JobNotFound:
        text = (
            f"job {self.id} is not in queue '{self.queue}': it never was, or it completed and its outcome is not kept"
        )
        return JobNotFound(text + " (any more). Set keep_result= on the task to keep outcomes longer.")

    def _failure_text(self) -> str:
        details = self._details
        text = f"job {self.id} of task '{self.task}' is dead"
        if self.attempts:
            text += f" after {self.attempts} attempt{'' if self.attempts == 1 else 's'}"
        if details is not None and details.reason == "stalled":
            text += f": it stalled {details.stalls} times, its worker was lost each time it ran"
        elif self.failures:
            text += f": {self.failures[-1].error}: {self.failures[-1].message}"
        return text + f". See `headrace jobs show {self.id} -q {self.queue}`."

    def __repr__(self) -> str:
        """Name the job, its task and what was last known of it."""
        return f"<Job {self.id} {self.task} on {self.queue}: {self._status}>"


def describe(found: Found) -> Details:
    """Turn what the store found into details."""
    try:
        record = found.record()
    except (RecordCorrupt, RecordTooNew):
        record = None
    outcome = found.outcome
    seconds = found.at_ms / 1000 if found.at_ms else None
    ended = found.status in {"failed", "cancelled"}
    return Details(
        task=record.task if record else outcome.task if outcome else "",
        priority=record.priority if record else 0,
        enqueued_at=record.enqueued_ms / 1000 if record else None,
        attempts=outcome.attempt if outcome else found.state.attempts,
        stalls=found.state.stalls,
        failures=tuple(found.failures),
        progress=found.progress,
        due_at=seconds if found.status == "delayed" else None,
        ended_at=outcome.finished_ms / 1000 if outcome else seconds if ended else None,
        worker=worker_of(found.hold) or None,
        held_at=held_since_ms(found.hold) / 1000 or None,
        reason="" if found.state.origin else found.state.reason,
        origin=found.state.origin,
    )
