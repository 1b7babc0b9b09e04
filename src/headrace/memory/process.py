"""The one memory governor of a process. It is loaded when an app first opens: importing Headrace shall cost little."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.memory.governor import Governor

# Why a list: what a child process that was forked finds here belongs to its parent, and is forgotten there.
_governors: list[Governor] = []


def governor() -> Governor:
    """Return the governor of this process, which is made on first use."""
    if not _governors:
        from headrace.memory.governor import Governor  # noqa: PLC0415 - see the head of this file

        _governors.append(Governor())
    return _governors[0]


os.register_at_fork(after_in_child=_governors.clear)
