"""The listener of `headrace worker` for probes: one port a command, also for several processes.

A supervisor asks its children, so that whoever probes gets one answer for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from headrace.health.answers import Answer, Report, answer_many
from headrace.health.listener import Listener
from headrace.worker.report import ASK_HEALTH, ASK_LIFE, Answered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from headrace.census import Census
    from headrace.cli.plan import Plan
    from headrace.settings import Settings
    from headrace.worker.child import Child
    from headrace.worker.supervisor import Supervisor

#: A child that does not say within so long that it lives, or how it is, does not answer, seconds.
LIFE_TIMEOUT: Final = 0.5
HEALTH_TIMEOUT: Final = 1.5
#: A child that has not started its worker after so long counts as one that hangs, seconds.
START_TIMEOUT: Final = 60.0


@contextlib.asynccontextmanager
async def listening(
    plan: Plan, settings: Settings, answer: Callable[[str], Awaitable[Answer]], census: Census
) -> AsyncIterator[None]:
    """Answer probes around a block, if a port was asked for.

    Args:
        plan: What the command line asks for.
        settings: What it leaves open.
        answer: Called with a path.
        census: Where the port and the requests are entered.

    Raises:
        SettingError: The port cannot be listened on.
    """
    port = settings.health_port if plan.health_port is None else plan.health_port
    if not port:
        yield
        return
    listener = Listener(plan.health_host or settings.health_host, port, answer, census)
    await listener.open()
    try:
        yield
    finally:
        await listener.close()


def answer_supervisor(supervisor: Supervisor) -> Callable[[str], Awaitable[Answer]]:
    """Return what answers for all processes of a supervisor."""

    async def answer(path: str) -> Answer:
        ask = _ask_life if path == "/livez" else _ask_health
        reports = await asyncio.gather(*(ask(child) for child in supervisor.children))
        return answer_many(path, reports, restarting=supervisor.waiting)

    return answer


async def _ask_life(child: Child) -> Report | None:
    if _starts(child):
        return Report(ready=False, pid=child.pid)
    lives = await child.ask(ASK_LIFE, LIFE_TIMEOUT)
    return None if lives is None else Report(ready=False, pid=child.pid)


async def _ask_health(child: Child) -> Report | None:
    if _starts(child):
        return Report(ready=False, reasons=("the worker starts",), pid=child.pid)
    said = await child.ask(ASK_HEALTH, HEALTH_TIMEOUT)
    if not isinstance(said, Answered):
        return None
    return Report(said.ready, tuple(said.reasons), said.health, child.pid)


def _starts(child: Child) -> bool:
    # Why: while the child imports the app nothing in it can answer, and that is no reason to kill it.
    return not child.started.is_set() and time.monotonic() - child.began < START_TIMEOUT
