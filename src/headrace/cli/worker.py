"""The command `headrace worker`: run the jobs of an app, in this process or in several under a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from headrace.errors import HeadraceError, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.worker.report import Reporter, Stopped
    from headrace.worker.supervisor import Tally
    from headrace.worker.worker import Worker

logger = logging.getLogger(__name__)

MOST_PROCESSES: Final = 256


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
    from headrace.logs import setup_logs
    from headrace.settings import load_settings
    from headrace.worker.report import Failed, Reporter

    reporter = Reporter.from_environment()
    plan = _Plan(app, _parse_queues(queues or []), concurrency, grace, burst, uvloop)
    setup_logs(load_settings())
    if reporter is None:
        if processes > 1 or reload:
            raise typer.Exit(_supervise(processes, burst=burst, reload=reload))
        _run_here(plan)
        return
    try:
        _run(plan, reporter)
    except HeadraceError as error:
        # The supervisor says it, once for all of its children.
        from headrace.cli.output import exit_code

        reporter.send(Failed(f"{type(error).__name__}: {error}", exit_code(error)))
        raise typer.Exit(exit_code(error)) from error


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the command line asks of one worker process."""

    app: str
    queues: dict[str, int | None]
    concurrency: int | None
    grace: float | None
    burst: bool
    uvloop: bool


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


# One process


def _run_here(plan: _Plan) -> None:
    from headrace.worker.supervisor import Tally

    stopped, restart = _run(plan, None)
    tally = Tally(os.getpid(), 1, 0, stopped.completed, stopped.failed, stopped.retried, stopped.seconds)
    _print_summary([tally])
    if restart:
        sys.stdout.flush()
        sys.stderr.flush()
        # Why: another SIGHUP before the new program listens would end it; the restart it asks for is under way.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same program again, no shell


def _run(plan: _Plan, reporter: Reporter | None) -> tuple[Stopped, bool]:
    """Run a worker to its end; returns what it did, and whether it is to begin anew."""
    from headrace.cli.apps import load_app

    app = load_app(plan.app)
    if not app.tasks.names():
        logger.warning(
            "the app has no tasks; import the modules that define them where the app is", extra={"app": plan.app}
        )
    worker = app.worker(plan.queues or None, plan.concurrency, grace=plan.grace, burst=plan.burst)
    with asyncio.Runner(loop_factory=_loop_factory(wanted=plan.uvloop)) as runner:
        try:
            return runner.run(_Host(worker, reporter).run())
        except HeadraceError:
            raise
        # The edge of a command: what a lifespan or the engine itself raises is recorded.
        except Exception as error:
            logger.critical("worker failed", exc_info=error)
            raise typer.Exit(1) from error


class _Host:
    """A worker under signals, and under a supervisor if there is one."""

    def __init__(self, worker: Worker, reporter: Reporter | None) -> None:
        self._worker = worker
        self._reporter = reporter
        self._restart = False

    def stop(self, *, hard: bool = False) -> None:
        self._worker.stop(hard=hard)

    def restart(self) -> None:
        """Stop gracefully; whoever runs this starts anew: the command itself, or the supervisor."""
        self._restart = True
        self._worker.stop()

    async def run(self) -> tuple[Stopped, bool]:
        from headrace.worker.report import Stopped
        from headrace.worker.shutdown import ShutdownSignals

        began = time.monotonic()
        with ShutdownSignals(self, supervised=self._reporter is not None) as signals, contextlib.ExitStack() as stack:
            telling = asyncio.create_task(self._tell_start())
            stack.callback(telling.cancel)
            if self._reporter is not None:
                self._reporter.watch(self._supervisor_gone, self._stop_hard)
                stack.callback(self._reporter.unwatch)
            stats = await self._worker.run()
            stopped = Stopped(stats.completed, stats.failed, stats.retried, time.monotonic() - began)
            if self._reporter is not None:
                self._reporter.send(stopped)
            return stopped, self._restart and not signals.count

    async def _tell_start(self) -> None:
        from headrace.worker.report import Started

        await self._worker.signals.started.wait()
        if self._reporter is not None:
            self._reporter.send(Started(self._worker.id, self._worker.grace))

    def _stop_hard(self) -> None:
        logger.warning("stopping without grace")
        self._worker.stop(hard=True)

    def _supervisor_gone(self) -> None:
        logger.warning("the supervisor is gone; stopping gracefully")
        self._worker.stop()


def _loop_factory(*, wanted: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not wanted or importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


# Several processes


def _supervise(processes: int, *, burst: bool, reload: bool) -> int:
    from headrace.cli.output import EXIT_FAILED, EXIT_OK
    from headrace.worker.supervisor import Supervisor

    # The children run this very command line; what tells them apart is the socket in their environment.
    supervisor = Supervisor([sys.executable, *sys.orig_argv[1:]], processes, burst=burst)
    if reload:
        from headrace.cli.reload import run_reloading

        asyncio.run(run_reloading(supervisor))
    else:
        asyncio.run(supervisor.run())
    if supervisor.refusal is not None:
        reason, code = supervisor.refusal
        typer.echo(reason, err=True)
        return code
    _print_summary(supervisor.tallies)
    return EXIT_FAILED if supervisor.kills else EXIT_OK


def _print_summary(tallies: Sequence[Tally]) -> None:
    from headrace.cli.output import print_table

    columns = ("process", "pid", "starts", "crashes", "seconds", "completed", "failed", "retried", "jobs/s")
    rows = [(number, tally.pid, *_numbers(tally)) for number, tally in enumerate(tallies, 1)]
    shown: list[tuple[object, ...]] = [*rows]
    if len(rows) > 1:
        sums = [round(sum(column), 1) for column in zip(*(row[2:] for row in rows), strict=True)]
        sums[2] = max(row[4] for row in rows)
        shown.append(("total", None, *sums))
    print_table(columns, shown, right=columns)


def _numbers(tally: Tally) -> tuple[float, ...]:
    ends = (tally.completed, tally.failed, tally.retried)
    return tally.starts, tally.crashes, round(tally.seconds, 1), *ends, round(tally.rate, 1)
