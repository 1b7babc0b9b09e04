"""The queues of an app in memory: what the scripts do on a server, for one process and nobody else."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.job import JobStatus
from headrace.record import FRESH, VERSION, State, read_failures, read_outcome, read_record, read_state
from headrace.store.replies import Counts, Found
from headrace.store.store import Store
from headrace.testing.inline_job import InlineJob
from headrace.worker.served import TOGETHER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headrace.arguments import Signature
    from headrace.store.replies import WorkerFacts
    from headrace.store.store import Client
    from headrace.task import Batch
    from headrace.worker.served import Served

ENDED: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class Memory(Store):
    """Hold the jobs of one app, and do what `headrace.store.Store` does, without a server.

    Args:
        prefix: Start of the keys of the app.
        signatures: Returns the signature of a task by its name.
        run: Runs jobs that were put back or are due.
        hold_delayed: Whether jobs with a delay stay delayed.
    """

    def __init__(
        self,
        prefix: str,
        signatures: Callable[[str], Signature | None],
        run: Callable[[Sequence[InlineJob]], Awaitable[None]],
        *,
        hold_delayed: bool,
    ) -> None:
        super().__init__(prefix, where="the memory of headrace.testing.inline")
        self.jobs: dict[str, InlineJob] = {}
        self.paused: set[str] = set()
        self._signatures = signatures
        self._run_jobs = run
        self._hold_delayed = hold_delayed
        self._names: set[str] = set()
        self._uniques: dict[tuple[str, str], InlineJob] = {}
        self._fences = itertools.count(1)
        # Why: `enqueue_sync` may be called from several threads at once.
        self._lock = threading.Lock()
        self._spent_ms = 0

    def accept(self, batch: Batch) -> tuple[list[InlineJob], bool]:
        """Accept a batch; returns its jobs and True, or the job that holds the key of the batch and False."""
        self.queue(batch.queue)
        with self._lock:
            holder = self._uniques.get((batch.queue, batch.unique_key)) if batch.unique_key else None
            if holder is not None and holder.status not in ENDED:
                return [holder], False
            jobs = [
                self._add(batch.queue, job_id, body, batch.priority, batch.delay_ms, batch.unique_key)
                for job_id, body in zip(batch.ids, batch.bodies, strict=True)
            ]
            if batch.unique_key:
                self._uniques[batch.queue, batch.unique_key] = jobs[0]
        return jobs, True

    def is_due(self, job: InlineJob) -> bool:
        """Tell whether a job could be run now."""
        return job.status is JobStatus.WAITING and job.queue not in self.paused

    def reserve(self, job: InlineJob, worker: str, stop: Callable[[], None]) -> None:
        """Give a job to a worker, which stops it when `stop` is called."""
        job.hold = f"{next(self._fences)}+{job.priority}+{worker}".encode()
        job.status = JobStatus.ACTIVE
        job.attempts = job.state.attempts + 1
        job.stop = stop

    def settle(self, served: Served) -> dict[InlineJob, list[InlineJob]]:
        """Record what became of jobs; returns each with the jobs that are to be run because of that, itself perhaps."""
        plain, rich = served.take(sys.maxsize)
        self._spent_ms += round(served.spent * 1000)
        served.spent = 0.0
        entries: list[tuple[Any, ...]] = [
            ("complete", plain[at], plain[at + 1], 0, b"", "", None) for at in range(0, len(plain), 2)
        ]
        entries += [(*entry, letter) for letter, those in rich.items() for entry in those]
        settled: dict[InlineJob, list[InlineJob]] = {}
        last: InlineJob | None = None
        for verb, job_id, hold, number, text, extra, letter in entries:
            if verb in TOGETHER:
                if last is not None:
                    settled[last].append(self._add(last.queue, job_id.decode(), text, int(extra), number, ""))
            elif verb != "start":
                job = self.jobs.get(job_id.decode())
                last = job if job is not None and job.hold == hold else None
                if last is not None:
                    settled[last] = [last] if self._end(last, verb, number, text, extra, letter) else []
        return settled

    def watch_end(self, job: InlineJob) -> Future[None]:
        """Return a future that ends with the job."""
        future: Future[None] = Future()
        with self._lock:
            if job.status in ENDED:
                future.set_result(None)
            else:
                job.watchers.append(future)
        return future

    def _add(self, queue: str, job_id: str, body: bytes, priority: int, delay_ms: int, key: str) -> InlineJob:
        now = now_ms()
        record = bytes((VERSION, priority)) + now.to_bytes(6, "big") + body
        read = read_record(record)
        signature = self._signatures(read.task)
        decode = msgspec.msgpack.decode
        self._names.add(queue)
        job = self.jobs[job_id] = InlineJob(
            id=job_id,
            task=read.task,
            queue=queue,
            priority=priority,
            key=key,
            delay=delay_ms / 1000,
            arguments=tuple(signature.decode_arguments(read.arguments) if signature else decode(read.arguments)),
            keywords=signature.decode_keywords(read.keywords) if signature else {},
            status=JobStatus.DELAYED if delay_ms and self._hold_delayed else JobStatus.WAITING,
            record=record,
            signature=signature,
            place=queue,
            at_ms=now + delay_ms,
        )
        return job

    def _end(self, job: InlineJob, verb: str, number: int, text: Any, extra: str, letter: str | None) -> bool:
        """Record the end of one attempt; True when the job is to be run again at once."""
        job.hold, job.stop = b"", None
        job.at_ms = now_ms()
        match verb:
            case "complete":
                # The server keeps only the outcome of a completed job, so that no test relies on more.
                job.outcome, job.errors, job.state = text, b"", FRESH
                self._finish(job, JobStatus.COMPLETED)
            case "dead":
                job.errors, job.state, job.place = text, read_state(extra.encode()), letter or job.queue
                self._names.add(job.place)
                self._finish(job, JobStatus.FAILED)
            case "retry":
                job.errors, job.state = text, read_state(extra.encode())
                job.retry_delays.append(number / 1000)
                # Why: nobody waits for the delay, so the job grows older by it instead; `max_age` counts it.
                job.record = _aged(job.record, number)
                if job.cancel_asked:
                    self._finish(job, JobStatus.CANCELLED)
                else:
                    job.status = JobStatus.WAITING
                    return True
            case "cancel":
                self._finish(job, JobStatus.CANCELLED)
            case "defer":
                job.state, job.status, job.at_ms = read_state(extra.encode()), JobStatus.DELAYED, job.at_ms + number
            case _:
                job.status = JobStatus.WAITING
        return False

    def _finish(self, job: InlineJob, status: JobStatus) -> None:
        with self._lock:
            job.status = status
            watchers, job.watchers = job.watchers, []
        for future in watchers:
            if not future.done():
                future.set_result(None)

    # What handles and queues ask; the client is never used.

    async def find(self, client: Client, queue: str, job_id: str) -> Found:
        """Return everything that is known of one job."""
        job = self._get(queue, job_id)
        now = now_ms()
        if job is None:
            return Found("missing", now, b"", FRESH, [], None, None, 0, b"", paused=False, lease_deadline_ms=0)
        return Found(
            job.status.value,
            now,
            b"" if job.outcome or job.status is JobStatus.COMPLETED else job.record,
            job.state,
            read_failures(job.errors),
            job.progress[-1] if job.progress and job.status is not JobStatus.COMPLETED else None,
            read_outcome(job.outcome) if job.outcome else None,
            job.at_ms,
            job.hold,
            paused=queue in self.paused,
            lease_deadline_ms=now + 30_000,
        )

    async def log_lines(self, client: Client, queue: str, job_id: str) -> list[str]:
        """Return what the task logged of a job."""
        job = self._get(queue, job_id)
        return list(job.log) if job is not None else []

    async def count_ahead(self, client: Client, queue: str, job_id: str, priority: int) -> tuple[int, bool]:
        """Return how many jobs would come before a waiting one."""
        waiting = self._those(queue, JobStatus.WAITING)
        own = [job.id for job in waiting if job.priority == priority]
        ahead = sum(1 for job in waiting if job.priority > priority)
        return ahead + (own.index(job_id) if job_id in own else len(own)), False

    async def workers(self, client: Client) -> dict[str, WorkerFacts]:
        """Return no worker: there is none."""
        return {}

    async def cancel(self, client: Client, queue: str, job_id: str) -> str:
        """Cancel a job; one that runs is told to stop."""
        # Why: a job that cancels itself must have let go of the loop once, so that it can be stopped at its next wait.
        await asyncio.sleep(0)
        job = self._get(queue, job_id)
        if job is None or job.status is JobStatus.COMPLETED:
            return "missing"
        if job.status in ENDED:
            return job.status.value
        job.cancel_asked = True
        if job.stop is not None:
            job.stop()
            return "asked"
        job.at_ms = now_ms()
        self._finish(job, JobStatus.CANCELLED)
        return "cancelled"

    async def retry(self, client: Client, queue: str, ids: Sequence[str | bytes], letter: str | None = None) -> int:
        """Put dead or cancelled jobs back, and run them."""
        moved: list[InlineJob] = []
        for job_id in ids:
            job = self.jobs.get(_text(job_id))
            if job is None or job.queue != queue:
                continue
            if job.status is JobStatus.CANCELLED or (job.status is JobStatus.FAILED and job.place == (letter or queue)):
                job.state, job.place, job.status, job.cancel_asked = FRESH, queue, JobStatus.WAITING, False
                moved.append(job)
        await self._run_jobs(moved)
        return len(moved)

    async def states(self, client: Client, queue: str, ids: Sequence[str | bytes]) -> list[State]:
        """Return the counts of jobs."""
        jobs = [self._get(queue, _text(job_id)) for job_id in ids]
        return [job.state if job is not None else FRESH for job in jobs]

    async def pause(self, client: Client, queue: str, *, paused: bool) -> bool:
        """Pause a queue, or resume it and run what has waited."""
        changed = paused != (queue in self.paused)
        if paused:
            self.paused.add(queue)
        else:
            self.paused.discard(queue)
            await self._run_jobs(self._those(queue, JobStatus.WAITING))
        return changed

    async def clear(self, client: Client, queue: str, status: str, limit: int) -> int:
        """Forget jobs of one status."""
        gone = self._those(queue, status)[:limit]
        for job in gone:
            del self.jobs[job.id]
        return len(gone)

    async def list_ids(self, client: Client, queue: str, status: str, cursor: str, limit: int) -> tuple[str, Any]:
        """Return the next cursor and one page of ids."""
        first = int(cursor)
        jobs = self._those(queue, status)
        if status in ENDED:
            jobs.reverse()
        page = [job.id.encode() for job in jobs[first : first + limit]]
        return (str(first + limit) if first + limit < len(jobs) else "0"), page

    async def stats(self, client: Client, queue: str) -> Counts:
        """Count the jobs of a queue."""
        count = {status: len(self._those(queue, status)) for status in JobStatus}
        now = now_ms()
        waiting = self._those(queue, JobStatus.WAITING)
        retried = sum(len(job.retry_delays) for job in list(self.jobs.values()) if job.queue == queue)
        totals = {"completed": count[JobStatus.COMPLETED], "failed": count[JobStatus.FAILED], "retried": retried}
        minutes = {name: {0: number} for name, number in {**totals, "spent_ms": self._spent_ms}.items()}
        return Counts(
            now_ms=now,
            waiting=count[JobStatus.WAITING],
            delayed=count[JobStatus.DELAYED],
            active=count[JobStatus.ACTIVE],
            dead=count[JobStatus.FAILED],
            cancelled=count[JobStatus.CANCELLED],
            kept=count[JobStatus.COMPLETED],
            workers=0,
            oldest_ms=max((now - job.at_ms for job in waiting), default=0),
            paused_since_ms=now if queue in self.paused else 0,
            totals=totals,
            minutes=minutes,
        )

    async def queue_names(self, client: Client) -> list[str]:
        """Return the names of all queues that were used, sorted."""
        return sorted(self._names)

    def _get(self, queue: str, job_id: str) -> InlineJob | None:
        job = self.jobs.get(job_id)
        return job if job is not None and job.place == queue else None

    def _those(self, queue: str, status: str) -> list[InlineJob]:
        return [job for job in list(self.jobs.values()) if job.place == queue and job.status == status]


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _aged(record: bytes, by_ms: int) -> bytes:
    enqueued = int.from_bytes(record[2:8], "big") - by_ms
    return record[:2] + max(0, enqueued).to_bytes(6, "big") + record[8:]


def _text(job_id: str | bytes) -> str:
    return job_id.decode() if isinstance(job_id, bytes) else job_id
