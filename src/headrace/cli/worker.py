"""The command `headrace worker`: run the jobs of an app, in this process or in several under a supervisor."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.cli.plan import Plan

MOST_PROCESSES: Final = 256
PortOption = Annotated[
    int | None,
    typer.Option(
        "--health-port",
        min=0,
        max=65_535,
        help="Answer /livez, /readyz, /healthz and /metrics on this port; 0 for none.  [default: HEADRACE_HEALTH_PORT]",
    ),
]
HostOption = Annotated[
    str | None, typer.Option("--health-host", help="Address on which it does.  [default: HEADRACE_HEALTH_HOST]")
]


def worker(
    app: Annotated[str, typer.Argument(help="The app as module:attribute, such as shop.jobs:app.", show_default=False)],
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "-q",
            "--queue",
            metavar="NAME[=SLOTS]",
            help="Serve this queue, in at most SLOTS slots; may be repeated.  [default: the queues of all tasks]",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "-c", "--concurrency", min=1, max=10_000, help="Slots of each process.  [default: QUEUE_CONCURRENCY]"
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            "-p",
            "--processes",
            min=1,
            max=MOST_PROCESSES,
            help="Worker processes; more than one run under a supervisor.",
        ),
    ] = 1,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace",
            min=0,
            max=3600,
            help="Seconds that running jobs get to finish at a stop.  [default: HEADRACE_GRACE]",
        ),
    ] = None,
    health_port: PortOption = None,
    health_host: HostOption = None,
    *,
    burst: Annotated[bool, typer.Option("--burst", help="Stop as soon as no job is left that is due.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="For development: restart when a .py file below this folder changes.")
    ] = False,
    uvloop: Annotated[bool, typer.Option("--uvloop/--no-uvloop", help="Use uvloop if it is installed.")] = True,
) -> None:
    """Run the jobs of an app.

    SIGTERM or Ctrl+C stops gracefully: no further jobs are taken, running ones get the grace, and what is left is
    handed back without burning an attempt. A second one stops at once.

    SIGHUP restarts. With several processes that is a rolling restart: a new process takes over before an old one stops.
    One process stops gracefully and begins anew under the same process id.
    """
    from headrace.cli.plan import PLAN_VARIABLE, Plan, same_command
    from headrace.logs import setup_logs
    from headrace.settings import load_settings

    served = _parse_queues(queues or [])
    plan = Plan(app, served, concurrency, processes, grace, burst, reload, uvloop, health_port, health_host)
    setup_logs(load_settings())
    if processes > 1 or reload:
        os.execve(sys.executable, same_command(), {**os.environ, PLAN_VARIABLE: plan.encode()})  # noqa: S606 - no shell
    _run_here(plan)


def _parse_queues(given: Sequence[str]) -> dict[str, int | None]:
    """Read `NAME` and `NAME=SLOTS`.

    Raises:
        OptionError: SLOTS is no whole number from 1 to 10000, or a queue is named twice.

    Example:
        >>> _parse_queues(["mail", "bulk=3"])
        {'mail': None, 'bulk': 3}
    """
    queues: dict[str, int | None] = {}
    for text in given:
        name, equals, slots = text.partition("=")
        if name in queues:
            raise OptionError(f"-q {text}: queue '{name}' is named twice. Name it once.")
        if equals and not (slots.isascii() and slots.isdecimal() and 1 <= int(slots[:9]) <= 10_000):  # noqa: PLR2004 - as Worker checks it
            raise OptionError(f"-q {text}: expected NAME or NAME=SLOTS with SLOTS a whole number from 1 to 10000.")
        queues[name] = int(slots) if equals else None
    return queues


def _run_here(plan: Plan) -> None:
    from headrace.cli.plan import same_command
    from headrace.cli.supervise import print_summary
    from headrace.cli.work import run_worker
    from headrace.worker.place import Tally

    stopped, restart = run_worker(plan, None)
    print_summary([Tally(os.getpid(), 1, 0, stopped.completed, stopped.failed, stopped.retried, stopped.seconds)])
    if restart:
        sys.stdout.flush()
        sys.stderr.flush()
        # Why: another SIGHUP before the new program listens would end it; the restart it asks for is under way.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(sys.executable, same_command())  # noqa: S606 - the same program again, no shell
