"""The ceiling of memory for one job in a child process: the system refuses what goes beyond it."""

from __future__ import annotations

import contextlib
import resource
from typing import TYPE_CHECKING

from headrace.errors import MemoryExceeded
from headrace.memory.limits import MIB
from headrace.memory.probes import read_usage

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def ceiling(task: str, limit_mb: int) -> Iterator[None]:
    """Let what runs inside add so much memory to the process and no more.

    Args:
        task: Name of the task, for the error.
        limit_mb: Most that it may add, MB; 0 for what the system allows.

    Raises:
        MemoryExceeded: It needed more. What the system refused was a MemoryError inside.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    if limit_mb:
        # Why address space: the system enforces no limit of the resident size. Reserved and unused counts as well.
        wanted = read_usage().virtual + limit_mb * MIB
        bounds = [limit for limit in before if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *bounds]), before[1]))
    try:
        yield
    except MemoryError as error:
        if isinstance(error, MemoryExceeded):
            raise
        # Why first: what is done next needs memory too.
        resource.setrlimit(resource.RLIMIT_AS, before)
        if limit_mb:
            text = f"task '{task}' needed more memory than its {limit_mb} MB. Raise memory_limit_mb= of the task"
        else:
            text = f"task '{task}' could get no more memory from the system. Raise the limit of the process"
        raise MemoryExceeded(text + ", or let a job do less.") from error
    finally:
        if limit_mb:
            resource.setrlimit(resource.RLIMIT_AS, before)
