"""The app: settings, tasks, one pool, one clock, one event bus; it wires the parts and owns their lifetimes."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from headrace.census import Census
from headrace.errors import OptionError, UsageError
from headrace.events import EventBus
from headrace.ids import random_name
from headrace.memory.process import governor
from headrace.middleware import Hooks
from headrace.open_parts import OpenParts
from headrace.options import Priority, TaskOptions, default_name
from headrace.queue import Queue
from headrace.reason import look_around
from headrace.record import BodyWriter
from headrace.retry import Exponential
from headrace.settings import Settings, load_settings
from headrace.sync_side import SyncSide
from headrace.task import Registry, Task, TaskDecorator
from headrace.worker.location import check_no_script_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from headrace.arguments import Signature
    from headrace.census import CensusRow
    from headrace.events import Event, Subscription
    from headrace.fleet.live import LiveSettings, Taken
    from headrace.health.verdict import Health
    from headrace.job import Job
    from headrace.reason import Surroundings
    from headrace.retry import Backoff
    from headrace.session import Session
    from headrace.sizing.demand import Sizing
    from headrace.store.replies import Found
    from headrace.task import Batch
    from headrace.worker.host import Follower
    from headrace.worker.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L")
M = TypeVar("M")


class Headrace(OpenParts):
    """A job queue app.

    Args:
        url: Server; without one, the setting REDIS_URL, else a server started on a private socket.
        settings: Values that override the environment, by field name of `headrace.settings.Settings`; or a `Settings`.

    Raises:
        SettingError: A setting is malformed.

    Use it as `async with app`; on exit nothing of it is left alive.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | Mapping[str, Any] | None = None) -> None:
        if isinstance(settings, Settings):
            if url is not None:
                raise OptionError("Headrace(url, settings=Settings(...)): give the URL inside the settings.")
            self.settings = settings
        else:
            overrides = dict(settings or {})
            if url is not None:
                overrides["redis_url"] = url
            self.settings = load_settings(overrides)
        self.id = random_name(8)
        self.tasks = Registry()
        self.hooks = Hooks()
        self._census = Census()
        self.events = EventBus(self._census, owner="app")
        self._session: Session | None = None
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._opened = 0
        #: Those that somebody still holds; each leaves with its last reference.
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._live: LiveSettings | None = None
        self._sync = SyncSide(lambda: self.settings, self, self._census)

    # Tasks

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        attempts: int = 3,
        backoff: Backoff = ...,
        timeout: float | None = None,
        hard_timeout: float | None = None,
        priority: int = Priority.NORMAL,
        keep_result: float | None = None,
        dead_letter: str | None = None,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
        max_age: float | None = None,
        process: bool = False,
        memory_limit_mb: int | None = None,
    ) -> TaskDecorator: ...
    def task(self, function: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]  # options are checked below
        """Register a function as a task; see `headrace.options.TaskOptions` for the options.

        Raises:
            OptionError: An option is unknown or out of its bounds, or another task has the name.
        """

        def register(target: Callable[..., Any]) -> Task[Any, Any, Any]:
            name = options.get("name")
            name = default_name(target) if name is None else name
            given = {"backoff": Exponential(), **options, "name": name}
            try:
                checked = TaskOptions(**given)
            except TypeError as error:
                raise OptionError(f"task '{name}': {error}. See headrace.options.TaskOptions.") from error
            made: Task[Any, Any, Any] = Task(target, checked, self)
            self.tasks.add(made)
            return made

        return register if function is None else register(function)

    def middleware(self, middleware: M) -> M:
        """Add hooks around every job: an object with any of before, after and error; usable as a decorator."""
        self.hooks.add_middleware(middleware)  # type: ignore[arg-type]  # checked inside, any of three methods will do
        return middleware

    def lifespan(self, function: L) -> L:
        """Add an async generator that yields a dict of resources for tasks; it runs around each worker."""
        self.hooks.add_lifespan(function)  # type: ignore[arg-type]  # checked inside
        return function

    # Lifetime

    async def __aenter__(self) -> Self:
        """Open the app: find or start the server and connect.

        Opening an open app counts; it closes with the last exit.

        Raises:
            ConnectionLost: The server could not be reached.
            ServerStartFailed: The default server could not be started.
            ServerTooOld: The server lacks what Headrace needs.
            SettingError: The fleet's connections do not fit the server.
            UsageError: A child process of a worker runs its script only for the tasks in it.
        """
        check_no_script_runs("opens an app")
        async with self._turn():
            if self._session is None:
                from headrace.session import Session  # noqa: PLC0415 - only an open app needs it

                self._session = await Session.open(self.settings, self._census, self, self.id, self.events.publish)
                try:
                    await self._follow_fleet()
                    await self._session.start_sizing(self._slots)
                except BaseException:
                    await self._close()
                    raise
                self.events.start()
                governor().join(self)
            self._opened += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the app with its last exit; the census is empty then, or an error in the log says what is left."""
        self._opened -= 1
        # Why: whoever opens the app while it closes waits, or the close would take what the new session has made.
        async with self._turn():
            if self._opened == 0:
                await self._close()

    def _turn(self) -> asyncio.Lock:
        """Return the lock of opening and closing; a lock belongs to one loop, and an app may outlive its loop."""
        loop = asyncio.get_running_loop()
        if self._opening is None or self._opening[0] is not loop:
            self._opening = (loop, asyncio.Lock())
        return self._opening[1]

    async def _close(self) -> None:
        if self._live is not None:
            await self._live.close()
            self._live = None
        governor().leave(self)
        session, self._session = self._session, None
        if session is None:
            return
        await self.events.aclose()
        await session.close()
        self.close_sync()
        self._census.check_closed("app")

    async def _follow_fleet(self) -> None:
        """Take the settings that are stored for the whole fleet, now and whenever they change."""
        from headrace.fleet.live import LiveSettings  # noqa: PLC0415 - only an open app needs it

        self._live = LiveSettings(self, self.id)
        self._live.follow(self._open_session)
        await self._live.start()

    def close_sync(self) -> None:
        """Close what `enqueue_sync` opened; it opens again on the next use."""
        self._sync.close()

    # What tasks, jobs and queues ask of the app

    def body_writer(self, task: str) -> BodyWriter:
        """Return the writer of one task's records, with the app's limits."""
        settings = self.settings
        return BodyWriter(
            task, limit_bytes=settings.record_limit_bytes, compress_over_bytes=settings.compress_over_bytes
        )

    async def enqueue(self, batch: Batch) -> list[Job[Any]]:
        """Send a batch; use `Task.enqueue`."""
        session = self._open_session
        return await session.sender.send(session.user, batch)

    def enqueue_sync(self, batch: Batch) -> list[Job[Any]]:
        """Send a batch from synchronous code; use `Task.enqueue_sync`. The app need not be open."""
        check_no_script_runs("enqueues jobs")
        return self._sync.send(batch)

    async def find(self, queue: str, job_id: str) -> Found:
        """Return everything known of a job, looking into the dead-letter queues of its queue too."""
        session = self._open_session
        found = await session.store.find(session.user, queue, job_id)
        if found.status == "missing":
            for letter in self.letters(queue):
                other = await session.store.find(session.user, letter, job_id)
                if other.status != "missing":
                    return other
        return found

    async def outcome(self, queue: str, job_id: str, *, timeout: float | None) -> tuple[str, bytes]:
        """Wait for the end of a job; use `Job.result`."""
        status, outcome = await self._open_session.inbox.wait(queue, job_id, timeout)
        if status == "missing" and (await self.find(queue, job_id)).status == "failed":
            return "failed", b""
        return status, outcome

    async def cancel(self, queue: str, job_id: str) -> str:
        """Cancel a job; use `Job.cancel`."""
        session = self._open_session
        return await session.store.cancel(session.user, queue, job_id)

    async def retry(self, queue: str, job_id: str) -> str:
        """Put a dead or cancelled job back; use `Job.retry`. Returns the queue it is in now, or an empty text."""
        session = self._open_session
        for place in (queue, *self.letters(queue)):
            (state,) = await session.store.states(session.user, place, (job_id,))
            home = state.origin or place
            if await session.store.retry(session.user, home, (job_id,), place if place != home else None):
                return home
        return ""

    async def log_lines(self, queue: str, job_id: str) -> list[str]:
        """Return the log lines of a job; use `Job.log_lines`."""
        session = self._open_session
        # Why: what a dead letter logged stays where it ran.
        (state,) = await session.store.states(session.user, queue, (job_id,))
        return await session.store.log_lines(session.user, state.origin or queue, job_id)

    async def surroundings(self, queue: str, job_id: str, found: Found) -> Surroundings:
        """Look at what stands around a job; use `Job.why`."""
        session = self._open_session
        workers = await session.store.workers(session.user)
        if found.status != "waiting":
            connected = await session.connected() if found.status == "active" else None
            return look_around(queue, found, workers, connected=connected)
        ahead = await session.store.count_ahead(session.user, queue, job_id, found.priority)
        return look_around(queue, found, workers, ahead)

    def signature(self, task: str) -> Signature | None:
        """Return the signature of a registered task."""
        known = self.tasks.get(task)
        return known.signature if known else None

    def letters(self, queue: str) -> list[str]:
        """Return the dead-letter queues that tasks of a queue name."""
        return self.tasks.letters(queue)

    # What users ask of the app

    def queue(self, name: str) -> Queue:
        """Return a queue by name; it need not exist yet.

        Raises:
            OptionError: The name cannot be one of a queue.
            UsageError: The app is not open.
        """
        session = self._open_session
        return Queue(name, session.store, lambda: self._open_session.user, self, self.letters)

    async def queues(self) -> list[Queue]:
        """Return all queues that were ever used."""
        session = self._open_session
        return [self.queue(name) for name in await session.store.queue_names(session.user)]

    def worker(
        self,
        queues: Sequence[str] | Mapping[str, int | None] | None = None,
        concurrency: int | None = None,
        **options: Any,
    ) -> Worker:
        """Return a worker for some queues; see `headrace.worker.worker.Worker`.

        Args:
            queues: Names, or names with the most slots each may use; without any, the queues of all tasks.
            concurrency: Slots; without any, the setting QUEUE_CONCURRENCY, also when it changes.
            **options: Further options of `Worker`.

        Raises:
            OptionError: A value is out of its bounds.
        """
        from headrace.worker.worker import Worker  # noqa: PLC0415 - only who runs jobs needs it

        worker = Worker(self, self.tasks.limits(queues), concurrency, **options)
        self._workers.add(worker)
        return worker

    def subscribe(
        self, event: str, callback: Callable[[Event], object], *, limit: int = 1024, owner: object = None
    ) -> Subscription:
        """Call back on events of this process (`job.completed`, `job.*`, `*`); see `EventBus.subscribe`.

        It ends with `close`, a `with` block around it, the object that is its `owner`, or the app.
        """
        return self.events.subscribe(event, callback, limit=limit, owner=owner)

    async def health(self) -> Health:
        """Say how the server, the way to it, this process's loop and its workers are, why, and what to do.

        It asks the server anew, takes about a second at most, and raises nothing because of the server. Cancelling the
        call gives up the wait; the probe goes on.

        Raises:
            UsageError: The app is not open.
        """
        return await self._open_session.monitor.health(lambda: [worker.state() for worker in self._workers])

    async def sizing(self) -> Sizing:
        """Hold the demand for connections, of this process and of the fleet, against the server's limit.

        Raises:
            ConnectionLost: The server could not be reached.
            UsageError: The app is not open, or runs without a server.
        """
        if (sizer := self._open_session.sizer) is None:
            raise UsageError("The app runs without a server, so there are no connections to add up.")
        return await sizer.sizing()

    def _slots(self) -> list[int]:
        """Return the slots of each worker that runs."""
        return [worker.concurrency for worker in self._workers if worker.is_running]

    @property
    def taken(self) -> Taken:
        """What this app has taken of the settings of the fleet."""
        from headrace.fleet.live import Taken  # noqa: PLC0415 - only an open app has taken any

        return self._live.taken if self._live is not None else Taken()

    def follow(self, follower: Follower) -> None:
        """Tell a part of each change of the settings from now on; for workers."""
        if self._live is not None:
            self._live.follow(follower)

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        if self._live is not None:
            self._live.unfollow(follower)

    def census(self) -> list[CensusRow]:
        """List every live timer, task, subscription, connection, thread and process of this app."""
        return self._census.entries()

    async def listen(self, channels: Iterable[str], callback: Callable[[str, bytes], None]) -> None:
        """Call back with channel and message of these control channels; for workers."""
        await self._open_session.listen(channels, callback)

    def unlisten(self, callback: Callable[[str, bytes], None]) -> None:
        """Stop calling back; for workers."""
        if self._session is not None:
            self._session.unlisten(callback)
