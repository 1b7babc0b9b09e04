"""Tasks: functions that can be enqueued, the registry, and what turns a call into a job to enqueue."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, overload

from headrace.arguments import Signature, keyword_payloads
from headrace.errors import ArgumentError, OptionError, RecordCorrupt
from headrace.ids import job_ids
from headrace.options import PLAIN, JobOptions, TaskOptions, check_job_options, check_task_options
from headrace.record import NO_OPTIONS, BodyWriter, Options, encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from headrace.job import Job

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs of one task, ready to be sent: one queue, one priority, one delay."""

    task: Task[Any, Any, Any]
    queue: str
    priority: int
    delay_ms: int
    unique_key: str
    ids: list[str]
    bodies: list[bytes]


class Producer(Protocol):
    """Takes batches to the server; the app is one."""

    def body_writer(self, task: str) -> BodyWriter:
        """Return the writer of one task's records, with the app's limits."""
        ...

    async def enqueue(self, batch: Batch) -> list[Job[Any]]:
        """Send a batch and return its jobs."""
        ...

    def enqueue_sync(self, batch: Batch) -> list[Job[Any]]:
        """Send a batch from synchronous code."""
        ...


class Task(Generic[P, C, R]):
    """A registered function: call it directly, or enqueue a job of it.

    Type parameters: the parameters of the function, what a direct call returns, and what a job results in.
    """

    def __init__(self, function: Callable[P, C], options: TaskOptions, producer: Producer) -> None:
        self.function = function
        self.options = check_task_options(options, function)
        self.name = options.name
        self.is_async = inspect.iscoroutinefunction(function)
        self.signature = Signature(function, options.name)
        self._producer = producer
        self._writer: BodyWriter | None = None
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Run the function here and now, without a queue."""
        return self.function(*args, **kwargs)

    def using(
        self,
        *,
        delay: float = 0.0,
        priority: int | None = None,
        key: str | None = None,
        queue: str | None = None,
        attempts: int | None = None,
        timeout: float | None = None,
        keep_result: float | None = None,
    ) -> Using[P, C, R]:
        """Return the task with options for the next calls.

        Args:
            delay: Seconds until the job is due, 0..31536000.
            priority: 1..20.
            key: While a job with this key is not finished, enqueue returns that job instead of a new one.
            queue: Another queue than the task's.
            attempts: 1..1000.
            timeout: Soft timeout in seconds.
            keep_result: How long the outcome is kept, in seconds.

        Raises:
            OptionError: A value is out of its bounds.
        """
        return Using(
            self,
            JobOptions(
                delay=delay, priority=priority, key=key, queue=queue, attempts=attempts, timeout=timeout,
                keep_result=keep_result,
            ),
        )  # fmt: skip

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job; once this returns, the job is run at least once.

        Raises:
            ArgumentError: The arguments do not fit the signature.
            EncodingError: An argument cannot be written.
            RecordTooLarge: The record passes the limit.
            ConnectionLost: The server could not be reached in time; the job may or may not be there.
        """
        batch = self.batch(((args, kwargs),), PLAIN)
        return (await self._producer.enqueue(batch))[0]

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job from synchronous code; raises as `enqueue`."""
        return self._producer.enqueue_sync(self.batch(((args, kwargs),), PLAIN))[0]

    async def enqueue_many(self, calls: Iterable[Sequence[Any]]) -> list[Job[R]]:
        """Enqueue many jobs in one round trip for each few thousand.

        Args:
            calls: For each job its arguments and, if there are any, its keyword arguments:
                `[(("a@b.c",), {"body": "1"}), (("d@e.f", "2"),)]`.

        Raises:
            ArgumentError: A call is malformed or does not fit; nothing was written.
            ConnectionLost: The server could not be reached in time; some of the jobs may be there.
        """
        return await self._producer.enqueue(self.batch(split_calls(self.name, calls), PLAIN))

    def renew(self) -> None:
        """Read the settings of the app anew with the next call."""
        self._writer = None

    def batch(self, calls: Iterable[tuple[Sequence[Any], Mapping[str, Any]]], options: JobOptions) -> Batch:
        """Check and encode calls; nothing is sent."""
        own = self.options
        writer = self._writer
        if writer is None:
            writer = self._writer = self._producer.body_writer(self.name)
        extra = NO_OPTIONS
        queue = own.queue
        priority = int(own.priority)
        delay_ms = 0
        if options is not PLAIN:
            queue = options.queue or queue
            priority = int(options.priority) if options.priority is not None else priority
            delay_ms = round(options.delay * 1000)
            different = (options.key, options.attempts, options.timeout, options.keep_result)
            if any(value is not None for value in different):
                extra = Options(*different)
        check, check_types, write, make_id = (
            self.signature.check_call, self.signature.check_types, writer.write, job_ids.make,
        )  # fmt: skip
        ids: list[str] = []
        bodies: list[bytes] = []
        for arguments, keywords in calls:
            check(arguments, keywords)
            payload = encode_value(arguments)
            check_types(payload)
            body = write(payload, self._keywords(keywords) if keywords else None, extra)
            ids.append(make_id())
            bodies.append(body)
        return Batch(self, queue, priority, delay_ms, options.key or "", ids, bodies)

    def _keywords(self, keywords: Mapping[str, object]) -> dict[str, Any]:
        payloads = keyword_payloads(self.name, keywords, encode_value)
        try:
            self.signature.decode_keywords(payloads)
        except RecordCorrupt as error:
            raise ArgumentError(str(error)) from error
        return payloads

    def __repr__(self) -> str:
        """Name the task and its queue."""
        return f"<Task {self.name} on {self.options.queue}>"


class Using(Generic[P, C, R]):
    """A task with options for the next calls; see `Task.using`."""

    __slots__ = ("options", "task")

    def __init__(self, task: Task[P, C, R], options: JobOptions) -> None:
        self.task = task
        self.options = check_job_options(options)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job; raises as `Task.enqueue`."""
        return (await self.task._producer.enqueue(self.task.batch(((args, kwargs),), self.options)))[0]  # noqa: SLF001 - one structure

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job from synchronous code; raises as `Task.enqueue`."""
        return self.task._producer.enqueue_sync(self.task.batch(((args, kwargs),), self.options))[0]  # noqa: SLF001 - one structure

    async def enqueue_many(self, calls: Iterable[Sequence[Any]]) -> list[Job[R]]:
        """Enqueue many jobs; see `Task.enqueue_many`. A unique key names one job and cannot be given to many.

        Raises:
            OptionError: The options hold a key.
        """
        if self.options.key is not None:
            raise OptionError("enqueue_many: a key names one job. Enqueue the jobs one by one, each with its own key.")
        batch = self.task.batch(split_calls(self.task.name, calls), self.options)
        return await self.task._producer.enqueue(batch)  # noqa: SLF001 - one structure


class Registry:
    """The tasks of one app by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any, Any, Any]] = {}

    def add(self, task: Task[Any, Any, Any]) -> None:
        """Register a task.

        Raises:
            OptionError: Another function has the name already.
        """
        known = self._tasks.get(task.name)
        if known is not None and known.function is not task.function:
            text = f"task '{task.name}' is registered twice: {known.function!r} and {task.function!r}"
            raise OptionError(text + ". Give one of them a name=.")
        self._tasks[task.name] = task

    def get(self, name: str) -> Task[Any, Any, Any] | None:
        """Return a task, or None."""
        return self._tasks.get(name)

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._tasks)

    def letters(self, queue: str) -> list[str]:
        """Return the dead-letter queues that tasks name, those of the tasks of a queue first; the queue itself is none.

        A job of any task may be in any queue, since `using(queue=...)` says so.
        """
        options = [task.options for task in self._tasks.values()]
        pairs = sorted((one.queue != queue, one.dead_letter) for one in options if one.dead_letter)
        return [letter for letter in dict.fromkeys(letter for _, letter in pairs) if letter != queue]

    def limits(self, queues: Sequence[str] | Mapping[str, int | None] | None) -> dict[str, int | None]:
        """Return the queues of a worker with their most slots; without any, the queues of all tasks.

        Raises:
            OptionError: A single name was given.
        """
        if isinstance(queues, str):
            raise OptionError(f"queues={queues!r}: expected a list of names, or names with slots. Pass [{queues!r}].")
        return dict(queues) if isinstance(queues, dict) else dict.fromkeys(queues or self.queues() or ["default"])

    def queues(self) -> list[str]:
        """Return the queues that the tasks name, sorted."""
        return sorted({task.options.queue for task in self._tasks.values()})


class TaskDecorator(Protocol):
    """What `@app.task(...)` returns: keeps the parameters and the result type of the function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


def split_calls(task: str, calls: Iterable[Sequence[Any]]) -> list[tuple[Sequence[Any], Mapping[str, Any]]]:
    """Return pairs of arguments and keyword arguments.

    Raises:
        ArgumentError: A call is not written as in `Task.enqueue_many`.
    """
    pairs: list[tuple[Sequence[Any], Mapping[str, Any]]] = []
    for index, call in enumerate(calls):
        shaped = isinstance(call, (tuple, list)) and len(call) in {1, 2}
        if shaped and isinstance(call[0], (tuple, list)):
            keywords = call[1] if len(call) == 2 else {}  # noqa: PLR2004 - a pair
            if isinstance(keywords, dict):
                pairs.append((tuple(call[0]), keywords))
                continue
        text = f"task '{task}': call {index} of enqueue_many is {call!r:.100}"
        raise ArgumentError(text + ": expected (arguments,) or (arguments, keywords), such as (('a',), {'body': '1'}).")
    return pairs
