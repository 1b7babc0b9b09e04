"""Handles that belong to the process that opened them, and not to its forked children.

A forked child shares every descriptor of its parent. A copy of a user's connection or of a lock would count for as long
as the child lives, so the child closes its copies at once. Programs that are executed never see them: Python's
descriptors close on exec.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol, TypeVar


class Closable(Protocol):
    """Anything with a `close` that also closes its descriptor."""

    def close(self) -> None:
        """Close the handle."""


_Handle = TypeVar("_Handle", bound=Closable)
_handles: weakref.WeakSet[Closable] = weakref.WeakSet()


def keep_from_forks(handle: _Handle) -> _Handle:
    """Have `handle` closed in every child that is forked from now on; return it."""
    _handles.add(handle)
    return handle


def _close_in_child() -> None:
    for handle in list(_handles):
        with contextlib.suppress(OSError):
            handle.close()


os.register_at_fork(after_in_child=_close_in_child)
