"""Run the jobs of an app where they are enqueued, without any server."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

from headrace.context import running
from headrace.errors import ArgumentError, UsageError
from headrace.job import JobStatus
from headrace.task import Task, Using
from headrace.testing.inline_session import InlineSession, InlineSyncSide
from headrace.testing.inline_worker import InlineAttempt, InlineWorker
from headrace.testing.memory import Memory
from headrace.testing.outside import Outside
from headrace.worker.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.app import Headrace
    from headrace.events import Subscription
    from headrace.session import Session
    from headrace.sync_side import SyncSide
    from headrace.testing.inline_job import InlineJob

#: Jobs that may run inside each other, each enqueued by the one around it.
MAX_DEPTH: Final = 50
#: Threads for plain functions; one is in use for each job inside another.
MAX_THREADS: Final = 10_000


class Inline:
    """An app whose jobs run where they are enqueued; made by `inline`.

    Attributes:
        memory: Where the jobs are.
    """

    def __init__(
        self, app: Headrace, *, resources: Mapping[str, Any] | None, hold_delayed: bool, raise_errors: bool
    ) -> None:
        self.memory = Memory(app.settings.prefix, app.signature, self.run, hold_delayed=hold_delayed)
        self._app = app
        self._resources = resources
        self._raise_errors = raise_errors
        self._context = contextvars.copy_context()
        self._before: (
            tuple[Session | None, int, tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None, SyncSide] | None
        ) = None
        self._subscriptions: list[Subscription] = []

    @property
    def jobs(self) -> list[InlineJob]:
        """All jobs in the order they were enqueued, also by other jobs."""
        return list(self.memory.jobs.values())

    def ran(self, task: Task[..., Any, Any] | Using[..., Any, Any]) -> list[InlineJob]:
        """Return the jobs of one task that were begun, in the order they were enqueued.

        Raises:
            ArgumentError: This is no task.
        """
        if isinstance(task, Using):
            task = task.task
        if not isinstance(task, Task):
            raise ArgumentError(f"ran({task!r:.100}): expected a task. Pass the function below @app.task.")
        return [job for job in self.jobs if job.task == task.name and job.attempts]

    async def run_delayed(self) -> list[InlineJob]:
        """Run the jobs that `hold_delayed` kept back, the first due first; returns them."""
        jobs = sorted((job for job in self.jobs if job.status is JobStatus.DELAYED), key=lambda job: job.at_ms)
        for job in jobs:
            job.status = JobStatus.WAITING
        await self.run(jobs)
        return jobs

    async def run(self, jobs: Sequence[InlineJob]) -> None:
        """Run the jobs that are due, on the running loop; called by enqueue."""
        await self._run(jobs, None)

    def run_sync(self, jobs: Sequence[InlineJob]) -> None:
        """Run the jobs that are due, from synchronous code; called by enqueue_sync."""
        attempt = _current_attempt()
        outside = Outside(self._app.census_book)
        if _runs_loop():
            # Why: the loop of this thread cannot go on before this call returns, so another thread has to run them.
            context = contextvars.copy_context()
            with ThreadPoolExecutor(max_workers=1, thread_name_prefix="headrace-inline") as other:
                other.submit(context.run, outside.run_until_complete, self._run(jobs, outside)).result()
        elif attempt is not None and attempt.worker.loop.is_running():
            asyncio.run_coroutine_threadsafe(self._run(jobs, None, attempt), attempt.worker.loop).result()
        else:
            outside.run_until_complete(self._run(jobs, outside))

    async def _run(
        self, jobs: Sequence[InlineJob], threads: Threads | None, attempt: InlineAttempt | None = None
    ) -> None:
        attempt = attempt or _current_attempt()
        depth = attempt.depth + 1 if attempt is not None else 1
        if depth > MAX_DEPTH:
            raise UsageError(
                f"{MAX_DEPTH} jobs run inside each other, each enqueued by the one around it: with a server this one "
                "would wait its turn. Test with headrace.testing.connected; or, if the jobs enqueue themselves with a "
                "delay, with inline(app, hold_delayed=True)."
            )
        if not any(self.memory.is_due(job) for job in jobs):
            return
        if attempt is not None and attempt.worker.is_here:
            await attempt.worker.run(jobs, depth)
            return
        dead = await self._app.census_book.create_task(
            self._serve(jobs, depth, threads),
            name="inline worker",
            owner="testing",
            expected=(Exception,),
            context=self._context.copy(),
        )
        await self._app.events.flush()
        for job in dead:
            if self._raise_errors and job.error is not None:
                raise job.error

    async def _serve(self, jobs: Sequence[InlineJob], depth: int, threads: Threads | None) -> list[InlineJob]:
        app = self._app
        async with contextlib.AsyncExitStack() as stack:
            resources = self._resources
            if resources is None:
                resources = await stack.enter_async_context(app.hooks.resources())
            threads = threads or Threads(app.census_book, maximum=MAX_THREADS, name="headrace-inline")
            worker = InlineWorker(app, self.memory, resources, threads)
            try:
                await worker.run(jobs, depth)
            finally:
                await worker.close()
        return worker.dead

    # The private parts of the app are swapped, so that nothing in the code under test has to know.

    def __enter__(self) -> Self:
        """Let the app run its jobs inline; it counts as open meanwhile.

        Raises:
            UsageError: It runs them inline already.
        """
        app = self._app
        if isinstance(app._session, InlineSession) or self._before is not None:  # noqa: SLF001 - see above
            raise UsageError("This app runs its jobs inline already. Leave the other `with inline(app)` block first.")
        self._context = contextvars.copy_context()
        self._subscriptions = app.events.subscriptions()
        self._before = (app._session, app._opened, app._opening, app._sync)  # noqa: SLF001 - see above
        app._session, app._opened, app._opening = InlineSession(app, self), 1, None  # noqa: SLF001 - see above
        app._sync = InlineSyncSide(app, self)  # noqa: SLF001 - see above
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Give the app back what it had.

        Raises:
            UsageError: The app was opened inside and not closed.
        """
        app = self._app
        opened = app._opened  # noqa: SLF001 - see above
        if self._before is not None:
            app._session, app._opened, app._opening, app._sync = self._before  # noqa: SLF001 - see above
            self._before = None
        for subscription in app.events.subscriptions():
            if subscription not in self._subscriptions:
                subscription.close()
        if kind is None and opened != 1:
            raise UsageError("The app was opened inside `with inline(app)` and is open still. Close it inside as well.")

    async def __aenter__(self) -> Self:
        """Do what `with` does."""
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Do what `with` does."""
        self.__exit__(kind, *exc)


def inline(
    app: Headrace,
    *,
    resources: Mapping[str, Any] | None = None,
    hold_delayed: bool = False,
    raise_errors: bool = False,
) -> Inline:
    """Run the jobs of an app where they are enqueued, without any server.

    Inside the block every way to enqueue runs the job before it returns, and the app counts as open. A job is run by
    what runs it in a worker: arguments and results are encoded, checked and decoded; attempts, timeouts, middleware,
    lifespans, `current_job()`, jobs that follow, unique keys, events, handles and queues work. What differs:

    - nobody waits: a delay, and the wait before another attempt, is noted on the job, which counts as older by it;
    - jobs run one after another, and one that is enqueued by a job runs inside it;
    - coroutines run on the loop of whoever enqueues, plain functions in a thread, also those with process=True;
    - after `enqueue_sync`, plain functions run in the thread of the caller, where its database transaction is;
    - the lifespans run around each call of enqueue;
    - outcomes are kept until the block ends.

    Args:
        app: The app; nothing in the code under test has to change.
        resources: Stand-ins for the resources of the lifespans, by name; with them, no lifespan is run.
        hold_delayed: Keep jobs with a delay back until `run_delayed()`.
        raise_errors: Raise what the last attempt of a dead job raised out of enqueue, instead of only noting it.

    Returns:
        The block, for `with` or `async with`; it lists the jobs.

    Example:
        >>> import asyncio
        >>> from headrace import Headrace
        >>> from headrace.testing import inline
        >>> app = Headrace()
        >>> @app.task
        ... async def greet(name: str) -> str:
        ...     return f"Hello, {name}"
        >>> async def test() -> None:
        ...     with inline(app) as ran:
        ...         job = await greet.enqueue("Ann")
        ...         assert await job.result() == "Hello, Ann"
        ...     (job,) = ran.jobs
        ...     print(job.task.split(".")[-1], job.arguments, job.status, job.attempts)
        >>> asyncio.run(test())
        greet ('Ann',) completed 1
    """
    return Inline(app, resources=resources, hold_delayed=hold_delayed, raise_errors=raise_errors)


def _current_attempt() -> InlineAttempt | None:
    attempt = running.get(None)
    return attempt if isinstance(attempt, InlineAttempt) else None


def _runs_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
