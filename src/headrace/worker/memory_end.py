"""Tell whether a process ended for lack of memory: by its signal, its last words, and what the kernel counts."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.worker.report import Failed, Pressed


def describe_memory_end(pid: int, code: int, failed: Failed | None, pressed: Pressed | None, oom_kills: int) -> str:
    """Say how a process that nobody had told to stop ran out of memory; an empty text when there is no sign of it.

    Args:
        pid: Its process id.
        code: Its exit code, or the negative number of the signal that ended it.
        failed: Why it could not go on, if it said so.
        pressed: The last that it said of its memory, if it said anything.
        oom_kills: Processes that the kernel has killed in the control group since the last look, for lack of memory.

    Example:
        >>> describe_memory_end(7, -9, None, None, 1)
        'process 7 was killed by the kernel: the memory of its control group ran out'
        >>> describe_memory_end(7, -9, None, None, 0)
        ''
    """
    if failed is not None and failed.reason.startswith("MemoryError"):
        return f"process {pid} could get no more memory"
    if code != -signal.SIGKILL:
        return ""
    last = ""
    short = pressed is not None and pressed.step in {"high", "critical"}
    if pressed is not None and short:
        last = f" (it was {pressed.step} at {pressed.used_mb:,} of {pressed.budget_mb:,} MB"
        last += f", and ran {', '.join(pressed.jobs)})" if pressed.jobs else ")"
    if oom_kills > 0:
        return f"process {pid} was killed by the kernel: the memory of its control group ran out{last}"
    if short:
        return f"process {pid} was killed, probably for lack of memory{last}"
    return ""
