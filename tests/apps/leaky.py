"""An app for tests of memory: tasks that keep what they made on purpose, and one that does not."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from headrace import Headrace, current_job

app = Headrace()
#: What the tasks leak; it ends with the process.
kept: list[bytes] = []


@app.task(queue="leaky", keep_result=3600, attempts=3)
async def leak(kilobytes: int, seconds: float = 0.0) -> list[int]:
    """Keep this much for good; says in which process and attempt."""
    kept.append(os.urandom(1_024) * kilobytes)
    if seconds:
        await asyncio.sleep(seconds)
    return [os.getpid(), current_job().attempt]


@app.task(queue="leaky", keep_result=3600, attempts=3)
async def steady(kilobytes: int, seconds: float = 0.0) -> list[int]:
    """Use this much, and let go of it."""
    used = os.urandom(1_024) * kilobytes
    if seconds:
        await asyncio.sleep(seconds)
    return [os.getpid(), current_job().attempt, len(used)]


@app.task(queue="leaky", keep_result=3600, attempts=3, process=True)
def hoard(kilobytes: int) -> int:
    """Use this much in a child process."""
    return len(os.urandom(1_024) * kilobytes)


@app.task(queue="leaky", attempts=5)
def devour() -> None:
    """End as a process does whose control group has no memory left: the kernel counts it and sends SIGKILL."""
    events = Path(os.environ["TEST_MEMORY_EVENTS"])
    kills = int(events.read_text().split()[-1])
    events.write_text(f"oom_kill {kills + 1}\n")
    os.kill(os.getpid(), signal.SIGKILL)
