"""One queue as its operators see it: stats, pause, resume, drain, clear, retry, listing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import OptionError, ResultTimeout
from headrace.job import Job, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.job import Desk
    from headrace.store.replies import Counts
    from headrace.store.store import Client, Store

#: Jobs in one page of a listing or of clear.
PAGE_JOBS: Final = 1_000
#: Cursors are positions, or for active jobs those of HSCAN, which have up to 64 bits.
MAX_CURSOR: Final = 2**64
CLEARABLE: Final = ("waiting", "delayed", "completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue at one moment.

    Attributes:
        waiting: Jobs that could run now.
        delayed: Jobs that are not due yet.
        active: Jobs that a worker holds.
        completed: Jobs completed since the queue was made.
        failed: Dead jobs that are kept.
        cancelled: Cancelled jobs that are kept.
        paused: Whether workers are kept from reserving.
        throughput: Jobs completed a second, over the last full minute and the current one.
        error_rate: Share of attempts that failed over the last 60 minutes, 0..1.
        avg_ms: Average time that a settled attempt ran over the last 60 minutes, ms.
        oldest_ms: Age of the oldest waiting job, ms.
        workers: Workers that hold jobs of this queue.
        retried: Attempts that failed and were tried again, since the queue was made.
        stalled: Jobs taken back from lost workers, since the queue was made.
    """

    waiting: int
    delayed: int
    active: int
    completed: int
    failed: int
    cancelled: int
    paused: bool
    throughput: float
    error_rate: float
    avg_ms: float
    oldest_ms: int
    workers: int
    retried: int
    stalled: int


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a listing; `cursor` leads to the next one and is None at the end."""

    jobs: list[Job[Any]]
    cursor: str | None


class Queue:
    """One queue of an app.

    Args:
        name: Name of the queue.
        store: Sends its commands.
        client: Returns the link for them.
        desk: What its jobs ask of the app.
        letters: Dead-letter queues that the tasks of this queue name.
    """

    def __init__(
        self, name: str, store: Store, client: Callable[[], Client], desk: Desk, letters: Callable[[str], list[str]]
    ) -> None:
        self.name = name
        self._store = store
        self._client = client
        self._desk = desk
        self._letters = letters
        store.queue(name)

    async def stats(self) -> QueueStats:
        """Count the jobs; one round trip."""
        return summarize(await self._store.stats(self._client(), self.name))

    async def pause(self) -> bool:
        """Keep all workers from reserving, within one round trip; False when it was paused already.

        Running jobs finish; jobs that a worker holds without having started them are handed back.
        """
        return await self._store.pause(self._client(), self.name, paused=True)

    async def resume(self) -> bool:
        """Let workers reserve again; False when it was not paused."""
        return await self._store.pause(self._client(), self.name, paused=False)

    async def drain(self, timeout: float = 3600.0) -> None:
        """Wait until no job is waiting, delayed or active.

        Args:
            timeout: Longest wait in seconds.

        Raises:
            ResultTimeout: Jobs were left.
        """
        wait = 0.02
        try:
            async with asyncio.timeout(timeout):
                while True:
                    stats = await self.stats()
                    if not stats.waiting + stats.delayed + stats.active:
                        return
                    # Why: this is an operator's wait, not a worker's; it asks at most once a second.
                    await asyncio.sleep(wait)
                    wait = min(1.0, wait * 1.5)
        except TimeoutError as error:
            text = f"queue '{self.name}' was not empty within {timeout:g} s"
            raise ResultTimeout(text + ". See `headrace queues stats` for what is left.") from error

    async def clear(self, status: str) -> int:
        """Delete all jobs of one status; active jobs cannot be deleted.

        Args:
            status: waiting, delayed, completed, failed or cancelled.

        Returns:
            How many were deleted; a million at most in one call.

        Raises:
            OptionError: The status is none of these.
        """
        if status not in CLEARABLE:
            text = f"status {status!r} cannot be cleared: expected one of {', '.join(CLEARABLE)}"
            raise OptionError(text + ". Cancel active jobs instead.")
        total = 0
        for _ in range(1_000):
            deleted = await self._store.clear(self._client(), self.name, str(status), PAGE_JOBS)
            total += deleted
            if not deleted:
                break
        return total

    async def retry_failed(self) -> int:
        """Put all dead jobs back with their attempts restored; at most a million in one call.

        Jobs of this queue that lie in a dead-letter queue come back here; jobs of other queues for which this one is
        the dead-letter queue go back to theirs.
        """
        total = await self._retry_dead(self.name, None)
        for letter in self._letters(self.name):
            total += await self._retry_dead(letter, self.name)
        return total

    async def _retry_dead(self, place: str, only: str | None) -> int:
        total = passed = 0
        for _ in range(1_000):
            _, ids = await self._store.list_ids(self._client(), place, "failed", str(passed), PAGE_JOBS)
            if not ids:
                break
            groups: dict[str, list[bytes]] = {}
            for job_id, state in zip(ids, await self._store.states(self._client(), place, ids), strict=True):
                groups.setdefault(state.origin or place, []).append(job_id)
            moved = 0
            for origin, group in groups.items():
                if only is None or origin == only:
                    letter = place if origin != place else None
                    moved += await self._store.retry(self._client(), origin, group, letter)
            total += moved
            passed += len(ids) - moved
        return total

    async def jobs(self, status: str, *, cursor: str | None = None, limit: int = 100) -> JobPage:
        """List jobs of one status, a page at a time; the server is never blocked for long.

        Args:
            status: Any status of `JobStatus`.
            cursor: What the last page returned.
            limit: Jobs a page, 1..1000; a page may hold fewer, or, for active jobs, some more.

        Raises:
            OptionError: The status or the limit is none of these, or the cursor is none of this listing.
        """
        if status not in set(JobStatus):
            raise OptionError(f"status {status!r}: expected one of {', '.join(JobStatus)}.")
        if not 1 <= limit <= PAGE_JOBS:
            raise OptionError(f"limit={limit!r}: expected a whole number from 1 to {PAGE_JOBS}.")
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and int(cursor) < MAX_CURSOR):
            raise OptionError(f"cursor={cursor!r:.60}: expected the cursor of an earlier page. Start without one.")
        following, ids = await self._store.list_ids(self._client(), self.name, str(status), cursor or "0", limit)
        jobs = [Job[Any](self._desk, job_id.decode(), self.name, "", JobStatus(status)) for job_id in ids]
        return JobPage(jobs, None if following == "0" else following)

    def job(self, job_id: str) -> Job[Any]:
        """Return a handle of a job by its id; nothing is asked of the server."""
        return Job[Any](self._desk, job_id, self.name, "", JobStatus.WAITING)

    def __repr__(self) -> str:
        """Name the queue."""
        return f"<Queue {self.name}>"


def summarize(counts: Counts) -> QueueStats:
    """Turn counts into stats."""
    minutes, totals = counts.minutes, counts.totals
    recent = sum(minutes.get("completed", {}).get(age, 0) for age in (0, 1))
    window = 60 + counts.now_ms // 1000 % 60
    finished = sum(minutes.get("completed", {}).values())
    errors = sum(minutes.get("failed", {}).values()) + sum(minutes.get("retried", {}).values())
    attempts = finished + errors
    spent = sum(minutes.get("spent_ms", {}).values())
    return QueueStats(
        waiting=counts.waiting,
        delayed=counts.delayed,
        active=counts.active,
        completed=totals.get("completed", 0),
        failed=counts.dead,
        cancelled=counts.cancelled,
        paused=counts.paused_since_ms > 0,
        throughput=recent / window,
        error_rate=errors / attempts if attempts else 0.0,
        avg_ms=spent / attempts if attempts else 0.0,
        oldest_ms=counts.oldest_ms,
        workers=counts.workers,
        retried=totals.get("retried", 0),
        stalled=totals.get("stalled", 0),
    )
