"""A worker that lives for one call: slots, runners and settling as in every worker, memory in place of a server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.context import MAX_TEXT, check_progress
from headrace.job import JobStatus
from headrace.record import read_record
from headrace.testing.memory import now_ms
from headrace.worker.attempt import Attempt
from headrace.worker.processes import Processes
from headrace.worker.runners import Runner
from headrace.worker.served import Served
from headrace.worker.settling import Settling
from headrace.worker.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.app import Headrace
    from headrace.task import Task
    from headrace.testing.inline_job import InlineJob
    from headrace.testing.memory import Memory
    from headrace.worker.threads import Threads

#: Jobs run one after another; what they enqueue themselves needs a slot beside them.
CONCURRENCY: Final = 10_000
#: Seconds that cancelled jobs get to end.
MARGIN: Final = 2.0
WORKER: Final = "inline"


class InlineAttempt(Attempt):
    """One attempt of a job that runs inline: its notes go into memory.

    Attributes:
        job: The job.
        worker: Who runs it.
        depth: How many jobs, one enqueued by the other, run at this moment, from 1.
    """

    __slots__ = ("depth", "job", "worker")

    def __init__(self, app: Headrace, served: Served, job: InlineJob, worker: InlineWorker, depth: int) -> None:
        super().__init__(app, served, job.id.encode(), job.hold, job.record, job.state, job.errors)
        self.job = job
        self.worker = worker
        self.depth = depth

    async def progress(self, percent: float, text: str = "") -> None:
        """Note how far the job is."""
        self.progress_sync(percent, text)

    async def log(self, line: str) -> None:
        """Add a line to the log of the job."""
        self.log_sync(line)

    def progress_sync(self, percent: float, text: str = "") -> None:
        """Do what `progress` does, from a plain function."""
        self.job.progress.append(check_progress(percent, text))

    def log_sync(self, line: str) -> None:
        """Do what `log` does, from a plain function."""
        self.job.log.append(str(line)[:MAX_TEXT])


class _Inside(Processes):
    """Run tasks with process=True in this process, as plain functions."""

    def __init__(self, app: Headrace, threads: Threads) -> None:
        super().__init__(app.census_book, app, maximum=1)
        self._threads = threads

    def prepare(self, task: Task[Any, Any, Any]) -> None:
        """Do nothing: no child process has to find the function."""

    async def run(self, attempt: Attempt, task: Task[Any, Any, Any]) -> Any:
        """Run one attempt."""
        record = read_record(attempt.record)
        arguments = task.signature.decode_arguments(record.arguments)
        keywords = task.signature.decode_keywords(record.keywords)
        return await self._threads.run(attempt, task.function, arguments, keywords)


class _Settling(Settling):
    """Settle as every worker does, and keep what was raised."""

    def failed(self, attempt: Attempt, runner: Runner, error: BaseException, seconds: float) -> None:
        """Take a job that raised, or was told to stop."""
        _note_error(attempt, error)
        super().failed(attempt, runner, error, seconds)

    def unreadable(self, attempt: Attempt, error: Exception) -> None:
        """Take a job that cannot be run."""
        _note_error(attempt, error)
        super().unreadable(attempt, error)


class InlineWorker:
    """Run some jobs, one after another, on the running loop.

    Args:
        app: The app.
        memory: Where its jobs are.
        resources: What the lifespans made, by name.
        threads: Where plain functions run.
    """

    def __init__(self, app: Headrace, memory: Memory, resources: Mapping[str, Any], threads: Threads) -> None:
        self.loop = asyncio.get_running_loop()
        #: Jobs that died here, in the order they did.
        self.dead: list[InlineJob] = []
        self._app = app
        self._memory = memory
        self._resources = resources
        self._threads = threads
        self._processes = _Inside(app, threads)
        self._runners: dict[bytes, Runner] = {}
        self._queues: dict[str, Served] = {}
        self._turns: dict[InlineJob, asyncio.Future[list[InlineJob]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._settling = _Settling(app.events, limit_bytes=app.settings.record_limit_bytes)
        self._settling.sender = self
        self._slots = Slots(
            app.census_book,
            concurrency=CONCURRENCY,
            runners=self._runners,
            settling=self._settling,
            deadline_set=self._deadline_set,
            slow_step=app.settings.loop_lag_warn,
        )

    @property
    def is_here(self) -> bool:
        """Whether it can run jobs for whoever asks."""
        return not self._closed and self.loop is asyncio.get_running_loop()

    async def run(self, jobs: Sequence[InlineJob], depth: int) -> None:
        """Run those jobs that are due, each with its further attempts and with the jobs that follow it.

        Cancelling the call stops the job that runs and leaves it and the rest waiting.

        Raises:
            OptionError: A task wants a resource that there is not.
        """
        todo = list(reversed(jobs))
        while todo:
            job = todo.pop()
            if self._memory.is_due(job):
                todo += reversed(await self._try(job, depth))

    async def close(self) -> None:
        """Stop what still runs, and let go of everything."""
        self._closed = True
        for attempt in self._slots.take_back():
            self._settling.hand_back(attempt)
        for attempt in list(self._slots.running):
            self._slots.stop(attempt, "shutdown")
        deadline = self.loop.time() + MARGIN
        while self._slots.running and (left := deadline - self.loop.time()) > 0:
            await asyncio.wait({self._slots.next_end()}, timeout=left)
        await self._slots.close()
        self.note()
        if self._timer is not None:
            self._timer.cancel()
        self._threads.close(0.5)

    async def _try(self, job: InlineJob, depth: int) -> list[InlineJob]:
        """Run one attempt of a job; returns the jobs that are to be run because of that, itself perhaps."""
        served = self._queues.get(job.queue)
        if served is None:
            served = self._queues[job.queue] = Served(job.queue, self._memory, None, WORKER)
        task = self._app.tasks.get(job.task)
        if task is not None and job.task.encode() not in self._runners:
            runner = Runner(self._app, task, self._resources, self._threads, self._processes)
            self._runners[job.task.encode()] = runner
        self._memory.reserve(job, WORKER, lambda: self._stop_soon(attempt))
        attempt = InlineAttempt(self._app, served, job, self, depth)
        job.error = None
        served.attempts[attempt.id_bytes] = attempt
        turn: asyncio.Future[list[InlineJob]] = self.loop.create_future()
        self._turns[job] = turn
        self._slots.put([attempt])
        try:
            return await turn
        except asyncio.CancelledError:
            self._slots.stop(attempt, "shutdown")
            raise

    def _stop_soon(self, attempt: Attempt) -> None:
        self.loop.call_soon_threadsafe(self._slots.stop, attempt, "cancelled")

    def _deadline_set(self, when: float) -> None:
        due = self.loop.time() + when - time.monotonic()
        if self._timer is not None and self._timer.when() > due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(due, self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._timer = None
        following = self._slots.check_deadlines(time.monotonic())
        if following:
            self._deadline_set(following)

    # What settling asks of whoever takes its entries to the server.

    def note(self) -> None:
        """Record in memory what has ended."""
        for served in self._queues.values():
            if served.plain or served.rich:
                for job, following in self._memory.settle(served).items():
                    if job.status is JobStatus.FAILED:
                        self.dead.append(job)
                    turn = self._turns.pop(job, None)
                    if turn is not None and not turn.done():
                        turn.set_result(following)

    def server_ms(self) -> int:
        """Return the time."""
        return now_ms()

    async def announce(self, attempt: Attempt) -> None:
        """Do nothing: in memory, every job that a worker holds has begun."""


def _note_error(attempt: Attempt, error: BaseException) -> None:
    if isinstance(attempt, InlineAttempt):
        attempt.job.error = error
