"""What stands in for the session of an app that runs its jobs inline: the same calls, no server, no connection."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from headrace.errors import ResultTimeout, UsageError
from headrace.health.monitor import Monitor
from headrace.health.verdict import Health, Status
from headrace.inbox import Inbox
from headrace.job import Job
from headrace.keys import inbox_channel
from headrace.pool.address import parse_address
from headrace.pool.link import Lane, Link
from headrace.pool.pool import Pool
from headrace.producer import Sender
from headrace.session import Session
from headrace.settings_auto import first_maximum
from headrace.sync_side import SyncSide
from headrace.testing.memory import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headrace.app import Headrace
    from headrace.health.verdict import WorkerState
    from headrace.pool.address import Address
    from headrace.pool.carrier import Carrier
    from headrace.task import Batch
    from headrace.testing.inline_job import InlineJob
    from headrace.testing.memory import Memory

NOWHERE: Final = "unix:///headrace.testing.inline"


class Jobs(Protocol):
    """Runs jobs where they are enqueued."""

    memory: Memory

    async def run(self, jobs: Sequence[InlineJob]) -> None:
        """Run the jobs that are due, from a coroutine."""
        ...

    def run_sync(self, jobs: Sequence[InlineJob]) -> None:
        """Run the jobs that are due, from synchronous code."""
        ...


class InlineSession(Session):
    """The open parts of an app without a server.

    Args:
        app: The app.
        jobs: Runs its jobs.
    """

    def __init__(self, app: Headrace, jobs: Jobs) -> None:
        settings = app.settings.override({"redis_url": NOWHERE})
        super().__init__(settings, app.census_book, app, app.id, None)
        self.pool = self.links = _NoPool(app)
        self.user = self.control = _NoLink(app)
        self.store = jobs.memory
        self.inbox = _InlineInbox(app, jobs.memory, self.user)
        self.sender = _InlineSender(app, jobs)
        self.monitor = _NoProbe(
            self.control,
            self.clock,
            app.census_book,
            settings,
            publish=app.events.publish,
            pool_stats=self.pool.stats,
        )

    async def listen(self, channels: Iterable[str], callback: Callable[[str, bytes], None]) -> None:
        """Refuse: only workers listen."""
        raise _no_server()


class InlineSyncSide(SyncSide):
    """What `enqueue_sync` uses in place of a connection."""

    def __init__(self, app: Headrace, jobs: Jobs) -> None:
        super().__init__(lambda: app.settings, app, app.census_book)
        self._sender = _InlineSender(app, jobs)

    def send(self, batch: Batch) -> list[Job[Any]]:
        """Run the jobs of a batch."""
        return self._sender.send_here(batch)


class _InlineSender(Sender):
    """Take a batch, run its jobs, and return their handles."""

    def __init__(self, app: Headrace, jobs: Jobs) -> None:
        super().__init__(jobs.memory, app, timeout=1.0, lease_ran_out=lambda _: None, where=NOWHERE)
        self._app = app
        self._jobs_here = jobs

    async def send(self, link: Carrier, batch: Batch) -> list[Job[Any]]:
        """Run the jobs of a batch."""
        jobs, fresh = self._jobs_here.memory.accept(batch)
        if fresh:
            await self._jobs_here.run(jobs)
        return self._handles(jobs)

    def send_here(self, batch: Batch) -> list[Job[Any]]:
        """Run the jobs of a batch, from synchronous code."""
        jobs, fresh = self._jobs_here.memory.accept(batch)
        if fresh:
            self._jobs_here.run_sync(jobs)
        return self._handles(jobs)

    def _handles(self, jobs: Sequence[InlineJob]) -> list[Job[Any]]:
        return [Job[Any](self._app, job.id, job.queue, job.task, job.status) for job in jobs]


class _InlineInbox(Inbox):
    """Return the outcomes of jobs from memory."""

    def __init__(self, app: Headrace, memory: Memory, link: Link) -> None:
        super().__init__(memory, link, link, inbox_channel(app.settings.prefix, app.id), app.census_book)
        self._memory = memory

    async def wait(self, queue: str, job_id: str, timeout: float | None) -> tuple[str, bytes]:
        """Return the status and outcome of a job; waits only for one that runs."""
        job = self._memory.jobs.get(job_id)
        if job is None or job.place != queue:
            return "missing", b""
        if job.status not in ENDED:
            if job.stop is None:
                raise ResultTimeout(
                    f"job {job_id} of task '{job.task}' is {job.status} and nobody runs it: its queue is paused, or "
                    "its delay is held. Resume the queue, or call run_delayed() of the inline app."
                )
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.wrap_future(self._memory.watch_end(job))
            except TimeoutError as error:
                text = f"job {job_id} on queue '{queue}' did not end within {timeout or 0:g} s; it goes on"
                raise ResultTimeout(text + ". Wait longer.") from error
        return job.status.value, job.outcome


class _NoProbe(Monitor):
    """Find nothing amiss: there is no server that could be."""

    async def look(self, within: float = 0.0) -> None:
        """Look at nothing."""

    async def health(self, workers: Callable[[], Sequence[WorkerState]] = tuple) -> Health:
        """Say that all is well."""
        return Health(status=Status.HEALTHY, server=NOWHERE, pool={}, workers=tuple(workers()), at=time.time())


class _NoPool(Pool):
    """A pool that gives no connection."""

    def __init__(self, app: Headrace) -> None:
        super().__init__(
            parse_address(NOWHERE),
            maximum=first_maximum(app.settings.redis_max_connections, app.settings.redis_min_connections),
            census=app.census_book,
            client_name="headrace.testing.inline",
        )

    def link(
        self,
        lane: Lane,
        purpose: str,
        *,
        owner: str,
        on_push: Callable[[bytes, bytes], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        address: Address | None = None,
    ) -> Link:
        """Refuse: a worker asks for links."""
        raise _no_server()


class _NoLink(Link):
    """A link that carries nothing."""

    def __init__(self, app: Headrace) -> None:
        super().__init__(parse_address(NOWHERE), Lane.USER, name=NOWHERE, census=app.census_book, owner="testing")

    async def roundtrip(
        self, payload: bytes, count: int, *, timeout: float = 30.0, subscribes: bool = False
    ) -> list[Any]:
        """Refuse: there is nothing to ask."""
        raise _no_server()

    async def subscribe(self, channels: Iterable[str], *, timeout: float = 10.0) -> None:
        """Refuse: nobody publishes."""
        raise _no_server()


def _no_server() -> UsageError:
    return UsageError(
        "The app runs its jobs inline (headrace.testing.inline): there is no server to ask, and no worker to start. "
        "Use headrace.testing.connected(app) for a test with a server and a worker."
    )
