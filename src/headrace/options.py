"""What `@app.task` and `using` may say: the options, their bounds, and what is refused."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import OptionError
from headrace.keys import HIGHEST_PRIORITY, LOWEST_PRIORITY
from headrace.record import MAX_NAME_BYTES
from headrace.retry import Backoff, Exponential
from headrace.store.store import check_queue_name

if TYPE_CHECKING:
    from collections.abc import Callable

#: Longest duration of any option, seconds: one year.
MAX_SECONDS: Final = 31_536_000.0
MAX_ATTEMPTS: Final = 1_000
MAX_KEY_CHARACTERS: Final = 500
MAX_MEMORY_MB: Final = 16_777_216


class Priority(IntEnum):
    """Named priorities; any whole number from 1 to 20 is one as well."""

    LOW = 1
    NORMAL = 5
    HIGH = 10
    CRITICAL = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What the jobs of a task have in common. Durations are seconds.

    Attributes:
        name: Name in records; the module and name of the function unless given.
        queue: Queue of its jobs.
        attempts: How often a job is tried, 1..1000.
        backoff: Wait before each further attempt.
        timeout: Soft timeout of an attempt: raised inside the task; None for none.
        hard_timeout: After this the attempt is ended whatever it does; None: the soft timeout and 5 s more.
        priority: 1..20.
        keep_result: How long an outcome is kept after completion; 0: not at all; None: as HEADRACE_KEEP_RESULT says.
        dead_letter: Queue that takes its dead jobs; None: they stay in their own.
        retry_on: Exceptions that are worth another attempt; any other is final.
        max_age: A job older than this is dead instead of being tried again; None for no limit.
        process: Run a plain function in a child process, which is killed at its timeout.
        memory_limit_mb: Most memory that a job may add to what its child process has, MB; None for no limit. Needs
            `process=True`: what a coroutine or a thread takes cannot be told from what its worker takes.
    """

    name: str
    queue: str = "default"
    attempts: int = 3
    backoff: Backoff = Exponential()  # noqa: RUF009 - it cannot be changed, so all may share it
    timeout: float | None = None
    hard_timeout: float | None = None
    priority: int = Priority.NORMAL
    keep_result: float | None = None
    dead_letter: str | None = None
    retry_on: tuple[type[Exception], ...] = (Exception,)
    max_age: float | None = None
    process: bool = False
    memory_limit_mb: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What one call does differently, as given to `using`; None means as the task says."""

    delay: float = 0.0
    priority: int | None = None
    key: str | None = None
    queue: str | None = None
    attempts: int | None = None
    timeout: float | None = None
    keep_result: float | None = None


PLAIN: Final = JobOptions()


def default_name(function: object) -> str:
    """Return the name of a task that is given none: its module and name.

    A function of the script that was started is named as if that had been imported, as a worker does: `python shop.py`
    enqueues for `headrace worker shop:app`. What was typed in or given with -c has no module.

    Raises:
        OptionError: It is no function, or has no name.
    """
    if not callable(function):
        raise OptionError(f"{function!r:.100} is no function. Put @app.task above a def.")
    name = getattr(function, "__qualname__", None)
    if name is None:
        raise OptionError(f"{function!r:.100} has no name of its own. Give it one: @app.task(name=...).")
    return f"{_module_of(function)}.{name}".removeprefix("__main__.")


def _module_of(function: object) -> str:
    module = str(getattr(function, "__module__", ""))
    main = sys.modules.get(module)
    if module not in {"__main__", "__mp_main__"} or main is None:
        return module
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != module:
        # It was started as `python -m name`.
        return str(spec.name)
    script = getattr(main, "__file__", None)
    return Path(script).stem if script else "__main__"


def check_task_name(name: object) -> None:
    """Refuse a name that no record can hold; raises OptionError."""
    if not isinstance(name, str) or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        text = f"task name {name!r:.80}: expected a text of 1 to {MAX_NAME_BYTES} bytes"
        raise OptionError(text + ". Give the task another name=.")


def check_task_function(where: str, function: object, *, process: bool) -> None:
    """Refuse what cannot be run as a job; raises OptionError."""
    if not callable(function):
        raise OptionError(f"{where}{function!r:.100} is no function. Put @app.task above a def.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise OptionError(f"{where}a generator cannot be a job. Return a list, or enqueue a job an item.")
    if process and inspect.iscoroutinefunction(function):
        raise OptionError(f"{where}process=True needs a plain def; a coroutine runs on the loop. Drop one of the two.")


def check_task_options(options: TaskOptions, function: Callable[..., Any]) -> TaskOptions:
    """Return valid options of a task; raises OptionError."""
    check_task_name(options.name)
    where = f"task '{options.name}': "
    check_task_function(where, function, process=options.process)
    check_queue_name(options.queue)
    if options.dead_letter is not None:
        check_queue_name(options.dead_letter)
    check_whole(where + "attempts", options.attempts, 1, MAX_ATTEMPTS)
    check_whole(where + "priority", options.priority, LOWEST_PRIORITY, HIGHEST_PRIORITY)
    backoff: object = options.backoff
    if not isinstance(backoff, Backoff):
        raise OptionError(f"{where}backoff={options.backoff!r}: expected Fixed(...), Linear(...) or Exponential(...).")
    for name in ("timeout", "hard_timeout", "max_age"):
        if getattr(options, name) is not None:
            check_seconds(where + name, getattr(options, name), low=0.001)
    if options.keep_result is not None:
        check_seconds(where + "keep_result", options.keep_result)
    if options.memory_limit_mb is not None:
        check_whole(where + "memory_limit_mb", options.memory_limit_mb, 1, MAX_MEMORY_MB)
        if not options.process:
            text = f"{where}memory_limit_mb={options.memory_limit_mb} needs a process of its own"
            raise OptionError(text + ". Make the task a plain def with process=True, or drop the limit.")
    if options.hard_timeout is not None and options.timeout is not None and options.hard_timeout < options.timeout:
        text = f"{where}hard_timeout={options.hard_timeout:g} is shorter than timeout={options.timeout:g}"
        raise OptionError(text + ". The soft timeout comes first.")
    given: object = options.retry_on
    kinds = given if isinstance(given, tuple) else (given,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise OptionError(f"{where}retry_on={options.retry_on!r}: expected exception classes, such as (OSError,).")
    return replace(options, retry_on=kinds)


def check_job_options(options: JobOptions) -> JobOptions:
    """Return valid options of a job; raises OptionError."""
    check_seconds("delay", options.delay)
    if options.queue is not None:
        check_queue_name(options.queue)
    if options.priority is not None:
        check_whole("priority", options.priority, LOWEST_PRIORITY, HIGHEST_PRIORITY)
    if options.attempts is not None:
        check_whole("attempts", options.attempts, 1, MAX_ATTEMPTS)
    if options.timeout is not None:
        check_seconds("timeout", options.timeout, low=0.001)
    if options.keep_result is not None:
        check_seconds("keep_result", options.keep_result)
    key: object = options.key
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARACTERS):
        raise OptionError(f"key={key!r:.80}: expected a text of 1 to {MAX_KEY_CHARACTERS} characters.")
    return options


def check_seconds(what: str, value: object, *, low: float = 0.0, high: float = MAX_SECONDS) -> float:
    """Return a duration in seconds.

    Raises:
        OptionError: It is no number from `low` to `high`; NaN is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise OptionError(f"{what}={value!r}: expected seconds from {low:g} to {high:g}.")
    return float(value)


def check_whole(what: str, value: object, low: int, high: int) -> int:
    """Return a whole number; raises OptionError when it is none from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{what}={value!r}: expected a whole number from {low} to {high}.")
    return int(value)
