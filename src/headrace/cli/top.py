"""The command `headrace top`: the fleet at a glance, again and again; queues with their rates, and every process.

The processes show themselves when they are asked (`headrace.fleet.snapshot`); a process that does not answer is known
from the registry of workers. On a terminal the view is drawn anew in place, elsewhere it is printed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace.cli.connect import UrlOption, with_app
from headrace.cli.output import EXIT_FAILED, EXIT_USAGE, JsonOption, fail, is_terminal, print_json

if TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.cli.top_look import View

#: Seconds that processes get to answer; one round trip, and what a busy loop adds.
ANSWER_WAIT: Final = 0.25
#: Time between the two looks that rates are computed from with `--once`, seconds.
RATE_WAIT: Final = 1.0


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once, for about a second, and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.5, max=60.0, help="Seconds between two looks.")] = 2.0,
    process: Annotated[
        str | None,
        typer.Option(
            "--process", "-p", metavar="PID", help="One process in full: PID, or HOST:PID; `all` for each of them."
        ),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Watch the fleet: queues with their rates, processes with their jobs, pools, memory, timers and tasks.

    With --process it shows one process in full: duties of its clock, its census, subscribers and histories. It ends
    with Ctrl+C. With --json it prints one line of JSON a look, or with --once one indented object.
    """
    if process not in (None, "all") and not process.rpartition(":")[2].isdecimal():
        fail(f"--process {process}: expected the process id that `headrace top` shows, HOST:PID, or all.", EXIT_USAGE)
    with contextlib.suppress(KeyboardInterrupt):
        with_app(url, lambda app: _watch(app, process, None if once else interval, as_json=as_json))


async def _watch(app: Headrace, process: str | None, interval: float | None, *, as_json: bool) -> None:
    from headrace.cli.top_look import Looks
    from headrace.cli.top_show import Screen, show_lines

    looks = Looks(app)
    view = await looks.look(ANSWER_WAIT)
    if interval is None:
        # Why: a rate needs two looks.
        await asyncio.sleep(RATE_WAIT)
        view = await looks.look(ANSWER_WAIT)
        _check(view, process)
        if as_json:
            print_json(view.narrowed(process))
        else:
            show_lines(view, process)
        return
    live = is_terminal() and not as_json
    with Screen(sys.stdout) if live else contextlib.nullcontext() as screen:
        # Bound: one look an interval, until the user ends it.
        while True:
            if screen is not None:
                screen.show(view, process)
            elif as_json:
                _print_line(view.narrowed(process))
            else:
                show_lines(view, process)
                typer.echo("")
            await asyncio.sleep(interval)
            view = await looks.look(ANSWER_WAIT)


def _check(view: View, process: str | None) -> None:
    if process not in (None, "all") and view.find(process) is None:
        known = ", ".join(f"{one.host}:{one.pid}" for one in view.processes[:8]) or "none"
        fail(f"No process {process} answered within {ANSWER_WAIT:g} s. Those that did: {known}.", EXIT_FAILED)


def _print_line(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value).decode())
