"""Ids of jobs and workers: unique without asking anyone, short in Redis, safe in logs and keys; names of processes.

An id is 12 random characters of the process (60 bits) and a counter of 6 hexadecimal digits, so that ids of one process
sort in the order in which they were made. A forked child gets characters of its own.
"""

from __future__ import annotations

import os
import secrets
import socket
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_COUNTER_LIMIT: Final = 0xFFFFFF
#: What the names of all connections of Headrace start with in the server's CLIENT LIST.
_CLIENT_NAME: Final = "headrace:"


def this_process() -> str:
    """Return host and process id, as they stand in the names of its connections."""
    return f"{socket.gethostname()}:{os.getpid()}"


def client_name() -> str:
    """Return what the names of this process's connections start with."""
    return f"{_CLIENT_NAME}{this_process()}"


def processes_of(names: Iterable[str]) -> set[str]:
    """Return the processes that have connections of these names, as `this_process` writes them.

    Example:
        >>> processes_of(["headrace:web-1:12:user:app", "headrace:web-1:12:control:app", "other"])
        {'web-1:12'}
    """
    return {":".join(name.split(":")[1:3]) for name in names if name.startswith(_CLIENT_NAME)}


def random_name(length: int) -> str:
    """Return random characters, 5 bits each, without letters that are easily mistaken."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class IdSource:
    """Make job ids; one is shared by a process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start with new random characters."""
        # Why: one assignment, so that a thread never joins the characters of one start to the number of another.
        self._source = random_name(12), count().__next__

    def make(self) -> str:
        """Return the next id, 18 characters."""
        start, following = self._source
        number = following()
        if number > _COUNTER_LIMIT:
            self.reset()
            return self.make()
        return f"{start}{number:06x}"


job_ids = IdSource()
os.register_at_fork(after_in_child=job_ids.reset)
