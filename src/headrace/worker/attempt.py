"""One attempt of one job: what the task sees of it, and what the worker keeps of it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.context import MAX_TEXT, check_progress
from headrace.errors import ArgumentError, LeaseLost, OptionError, UsageError
from headrace.options import PLAIN
from headrace.record import FRESH, NO_OPTIONS, Options, State, encode_value
from headrace.resp import pack_command
from headrace.store.replies import fence_of
from headrace.task import Task, Using

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.context import CurrentJob
    from headrace.worker.frames import Follower
    from headrace.worker.host import Host
    from headrace.worker.served import Served

#: Log lines kept of one job, and how long they are kept, seconds.
LOG_LINES = 200
LOG_SECONDS = 86_400
#: Jobs that may follow one job.
MAX_FOLLOWS = 1_000


class Attempt:
    """One job that this worker holds. It is the `CurrentJob` of the task that runs it."""

    __slots__ = (
        "ended", "errors", "follows", "hard_at", "hold", "host", "id_bytes", "interrupt", "job_options", "noted",
        "number", "record", "served", "slot", "soft_at", "started", "state", "stop", "target", "waits",
    )  # fmt: skip

    def __init__(
        self, host: Host, served: Served, id_bytes: bytes, hold: bytes, record: bytes, state: State, errors: bytes
    ) -> None:
        self.host = host
        self.served = served
        self.id_bytes = id_bytes
        self.hold = hold
        self.record = record
        self.state = state
        self.errors = errors
        self.number = state.attempts + 1
        self.started = 0.0
        self.stop: str | None = None
        self.soft_at = 0.0
        self.hard_at = 0.0
        #: Raises an exception class where the job runs, if that is not on the loop.
        self.interrupt: Callable[[type[BaseException]], None] | None = None
        self.slot: asyncio.Task[None] | None = None
        self.target: Task[Any, Any, Any] | None = None
        self.job_options: Options = NO_OPTIONS
        self.follows: list[Follower] | None = None
        #: Something of the job lies beside its record, to be forgotten with it.
        self.noted = state is not FRESH
        self.ended = False
        #: It waits for a thread or a child process; its timeouts have not begun.
        self.waits = False

    # What the task sees

    @property
    def id(self) -> str:
        """Id of the job."""
        return self.id_bytes.decode()

    @property
    def task_bytes(self) -> bytes:
        """Name of the task as it stands in the record; empty when the record is too short to have one."""
        record = self.record
        return record[10 : 10 + record[9]] if len(record) > 10 else b""  # noqa: PLR2004 - see headrace.record

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.target.name if self.target else ""

    @property
    def queue(self) -> str:
        """Name of the queue."""
        return self.served.name

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return self.number

    @property
    def fence(self) -> int:
        """A number that grows with each lease of this job."""
        return fence_of(self.hold)

    @property
    def deadline(self) -> datetime | None:
        """When the soft timeout strikes (UTC), None without one."""
        soft_at = self.soft_at
        if not soft_at:
            # Why: a job that has not waited yet has no deadlines set; they count from its start all the same.
            options = self.target.options if self.target else None
            timeout = self.job_options.timeout or (options and (options.timeout or options.hard_timeout))
            if not timeout:
                return None
            soft_at = self.started + timeout
        return datetime.fromtimestamp(time.time() + soft_at - time.monotonic(), UTC)

    def begin(self) -> None:
        """Let the timeouts begin now: so far the job waited for a thread or a child process. Any thread may call."""
        now = time.monotonic()
        shift = now - self.started
        self.started = now
        if self.soft_at:
            self.soft_at += shift
            self.hard_at += shift
        self.waits = False

    async def progress(self, percent: float, text: str = "") -> None:
        """Note how far the job is; see `CurrentJob.progress`."""
        self._check_loop()
        note = encode_value(check_progress(percent, text))
        self.noted = True
        if not await self.host.store.report(self.host.user, self.queue, self.id, self.hold, note):
            raise LeaseLost(f"job {self.id} is not held by this worker any more. Stop; another worker runs it.")

    async def log(self, line: str) -> None:
        """Add a line to the log of the job; see `CurrentJob.log`."""
        self._check_loop()
        key = self.served.calls.keys.log(self.id)
        commands = (
            pack_command("RPUSH", key, str(line)[:MAX_TEXT]),
            pack_command("LTRIM", key, -LOG_LINES, -1),
            pack_command("EXPIRE", key, LOG_SECONDS),
        )
        await self.host.user.roundtrip(b"".join(commands), len(commands))

    def progress_sync(self, percent: float, text: str = "") -> None:
        """Do what `progress` does, from a task that runs in a thread."""
        self._from_thread(self.progress(percent, text))

    def log_sync(self, line: str) -> None:
        """Do what `log` does, from a task that runs in a thread."""
        self._from_thread(self.log(line))

    def _from_thread(self, call: Any) -> None:
        slot = self.slot
        if slot is None:
            call.close()
            raise UsageError(f"job {self.id} does not run any more, so that nothing can be noted of it.")
        if asyncio._get_running_loop() is slot.get_loop():  # noqa: SLF001 - documented, and raises nothing where none runs
            call.close()
            raise UsageError(f"job {self.id} runs as a coroutine, which must not block. Use `await job.progress(...)`.")
        asyncio.run_coroutine_threadsafe(call, slot.get_loop()).result(timeout=30)

    def _check_loop(self) -> None:
        if self.slot is not None and self.slot.get_loop() is not asyncio.get_running_loop():
            text = f"job {self.id} runs in a thread, whose own event loop has no connection"
            raise UsageError(text + ". Use progress_sync and log_sync.")

    def follow(self, task: Any, *args: Any, **kwargs: Any) -> str:
        """Enqueue a job when this one completes; see `CurrentJob.follow`."""
        if self.follows is None:
            self.follows = []
        return add_follower(self, self.follows, task, args, kwargs)

    def __repr__(self) -> str:
        """Name the job and the attempt."""
        return f"<job {self.id} of {self.task or '?'}, attempt {self.number}, fence {self.fence}>"


def add_follower(
    job: CurrentJob, follows: list[Follower], task: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> str:
    """Add the job of a call to the followers of a job and return its id; see `CurrentJob.follow`."""
    calls = ((arguments, keywords),)
    if isinstance(task, Using):
        batch = task.task.batch(calls, task.options)
    elif isinstance(task, Task):
        batch = task.batch(calls, PLAIN)
    else:
        raise ArgumentError(f"follow({task!r}): expected a task, or a task with using(...).")
    if batch.queue != job.queue:
        text = f"job {job.id} of queue '{job.queue}' cannot be followed by a job of queue '{batch.queue}'"
        raise OptionError(text + ". Use the same queue: only then both are one atomic transition.")
    if batch.unique_key:
        raise OptionError("follow: a job with a key cannot follow. Enqueue it instead.")
    if len(follows) >= MAX_FOLLOWS:
        raise OptionError(f"job {job.id} has {MAX_FOLLOWS} followers already. Enqueue a job that enqueues the rest.")
    follows.append((batch.ids[0], batch.delay_ms, batch.bodies[0], batch.priority))
    return batch.ids[0]
