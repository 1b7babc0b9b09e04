"""How a task is run: a coroutine on the loop, a plain function in a thread, `process=True` in a child process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.errors import OptionError, RecordCorrupt
from headrace.record import NO_OPTIONS, read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from headrace.task import Task
    from headrace.worker.attempt import Attempt
    from headrace.worker.host import Host
    from headrace.worker.processes import Processes
    from headrace.worker.threads import Threads

#: Seconds between the soft and the hard timeout of a task that does not say.
HARD_MARGIN = 5.0


class Runner:
    """Run the jobs of one task.

    Args:
        host: The app.
        task: The task.
        resources: What the lifespans made, by name.
        threads: Where plain functions run.
        processes: Where plain functions with process=True run.

    Raises:
        OptionError: The task wants a resource that no lifespan yields, or a child process could not find its function.
    """

    __slots__ = ("_armed", "_host", "_make", "_resources", "hard", "keep", "soft", "task")

    def __init__(
        self,
        host: Host,
        task: Task[Any, Any, Any],
        resources: Mapping[str, Any],
        threads: Threads,
        processes: Processes,
    ) -> None:
        options = task.options
        self.task = task
        self.soft = options.timeout or 0.0
        self.hard = options.hard_timeout or (self.soft + HARD_MARGIN if self.soft else 0.0)
        self._host = host
        self._armed = False
        self.retune()
        missing = sorted(set(task.signature.resources.values()) - set(resources))
        if missing:
            text = f"task '{task.name}' takes the resources {missing}, which no lifespan yields"
            raise OptionError(text + ". Add them with @app.lifespan.")
        self._resources = {name: resources[source] for name, source in task.signature.resources.items()}
        function: Callable[..., Any] = task.function
        self._make: Callable[[Attempt, tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Any]]
        if task.is_async:
            self._make = lambda _attempt, arguments, keywords: function(*arguments, **keywords)
        elif options.process:
            if task.signature.resources:
                text = f"task '{task.name}' with process=True takes the resources {sorted(task.signature.resources)}"
                raise OptionError(text + ", which live in the worker. Make them in the task, or drop process=True.")
            processes.prepare(task)
            self._make = lambda attempt, _arguments, _keywords: processes.run(attempt, task)
        else:
            self._make = lambda attempt, arguments, keywords: threads.run(attempt, function, arguments, keywords)

    def retune(self) -> None:
        """Take from the settings of now how long results are kept, where the task does not say."""
        own = self.task.options.keep_result
        self.keep = self._host.settings.keep_result if own is None else own

    def follow_next(
        self, follow: Callable[[Runner, Coroutine[Any, Any, Any], Attempt], Coroutine[Any, Any, Any]]
    ) -> None:
        """Hand the coroutine of the next job, and of that one alone, to somebody who wraps it."""
        if self._armed:
            return
        self._armed = True
        plain = self._make

        def make(attempt: Attempt, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Coroutine[Any, Any, Any]:
            self._make, self._armed = plain, False
            return follow(self, plain(attempt, arguments, keywords), attempt)

        self._make = make

    def start(self, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        """Decode the arguments and return the coroutine that runs the job.

        Raises:
            RecordCorrupt: The record cannot be read, or its arguments do not fit.
        """
        attempt.target = self.task
        record = attempt.record
        keywords: dict[str, Any] = {}
        if record[8]:
            read = read_record(record)
            attempt.job_options = read.options
            attempt.noted = attempt.noted or read.options is not NO_OPTIONS
            arguments = self.task.signature.decode_arguments(read.arguments)
            if read.keywords:
                keywords = self.task.signature.decode_keywords(read.keywords)
        else:
            # Why: the common record, positional arguments alone, is cut by hand: this runs once a job.
            arguments = self.task.signature.decode_arguments(record[10 + record[9] :])
        if self._resources:
            keywords.update(self._resources)
        try:
            coroutine = self._make(attempt, arguments, keywords)
        except TypeError as error:
            text = f"task '{self.task.name}' cannot be called with its arguments: {error}"
            raise RecordCorrupt(text + ". Give the new signature a new task name, or defaults.") from error
        if self._host.hooks:
            return self._host.hooks.around(attempt, coroutine)
        return coroutine

    def timeouts(self, attempt: Attempt) -> tuple[float, float]:
        """Return the soft and the hard timeout of a job in seconds, 0 for none."""
        own = attempt.job_options.timeout
        if own is None:
            return self.soft, self.hard
        return own, own + max(HARD_MARGIN, self.hard - self.soft)

    def keep_result(self, attempt: Attempt) -> float:
        """Return how long the outcome of a job is kept, in seconds."""
        own = attempt.job_options.keep_result
        return self.keep if own is None else own

    def attempts(self, attempt: Attempt) -> int:
        """Return how often a job is tried at most."""
        return attempt.job_options.attempts or self.task.options.attempts
