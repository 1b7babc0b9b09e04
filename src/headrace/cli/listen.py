"""The listener of `headrace worker` for probes and scrapes: one port a command, also for several processes.

A supervisor asks its children, so that whoever probes or scrapes gets one answer for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from headrace.errors import UsageError
from headrace.health.answers import METRICS, OK, Answer, Report, answer_many
from headrace.health.listener import Listener
from headrace.telemetry.samples import Counted, Sample
from headrace.worker.report import ASK_FIGURES, ASK_HEALTH, ASK_LIFE, ASK_QUEUES, Answered, Measured, Queues

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from headrace.census import Census
    from headrace.cli.plan import Plan
    from headrace.settings import Settings
    from headrace.worker.child import Child
    from headrace.worker.place import Tally
    from headrace.worker.supervisor import Supervisor

#: A child that does not say within so long that it lives, or how it is, does not answer, seconds.
LIFE_TIMEOUT: Final = 0.5
HEALTH_TIMEOUT: Final = 1.5
#: The same for its figures, and for the queues, which are asked for twice at most: a scrape takes less than a second.
FIGURES_TIMEOUT: Final = 0.45
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
        if path == METRICS:
            return await _measure(supervisor)
        ask = _ask_life if path == "/livez" else _ask_health
        reports = await asyncio.gather(*(ask(child) for child in supervisor.children))
        return answer_many(path, reports, restarting=supervisor.waiting)

    return answer


async def answer_metrics(
    processes: Mapping[str, Sequence[Sample] | None],
    counted: Counted | None,
    census: Census,
    places: Mapping[str, Sequence[Sample]] | None = None,
) -> Answer:
    """Answer a scrape with what was told; see `headrace.telemetry.prometheus.write`."""
    # Why here: a command that is not scraped does without it.
    from headrace.telemetry.prometheus import CONTENT_TYPE, compose

    try:
        return Answer(OK, {}, await compose(processes, counted, census, places or {}), CONTENT_TYPE)
    except UsageError as error:
        return Answer(HTTPStatus.NOT_IMPLEMENTED, {"error": str(error)})


async def _measure(supervisor: Supervisor) -> Answer:
    """Ask every process for its figures, and one for the queues, of which all would say the same."""
    places = {str(place.number): place for place in supervisor.places if not place.finished}
    running = {number: place.child for number, place in places.items() if place.child and not _starts(place.child)}
    numbers = list(running)
    counted, told = await asyncio.gather(
        _ask_queues(running[numbers[0]] if numbers else None),
        asyncio.gather(*(_ask_figures(child) for child in running.values())),
    )
    answered = {number: samples for number, samples in zip(numbers, told, strict=True) if samples is not None}
    # Why another: the first may hang, while the server and the others do not.
    others = [running[number] for number in answered if number != numbers[0]]
    if counted is None and others:
        counted = await _ask_queues(others[0])
    tallies = {number: _tell(place.tally) for number, place in places.items()}
    processes = {number: answered.get(number) for number in places}
    # Why none at all: while no process has an app that is open, nobody knows whether the server is there.
    silent = Counted() if answered else None
    return await answer_metrics(processes, counted or silent, supervisor.census, tallies)


def _tell(tally: Tally) -> list[Sample]:
    return [
        Sample("headrace_process_starts_total", value=tally.starts),
        Sample("headrace_process_crashes_total", value=tally.crashes),
    ]


async def _ask_figures(child: Child) -> list[Sample] | None:
    said = await child.ask(ASK_FIGURES, FIGURES_TIMEOUT)
    return said.samples or None if isinstance(said, Measured) else None


async def _ask_queues(child: Child | None) -> Counted | None:
    said = None if child is None else await child.ask(ASK_QUEUES, FIGURES_TIMEOUT)
    return said.counted if isinstance(said, Queues) else None


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
