"""`headrace worker` after its command line was parsed: a supervisor, one of its children, and the summary."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from headrace.cli.exits import EXIT_FAILED, EXIT_OK, exit_code
from headrace.cli.plan import PLAN_VARIABLE, decode_plan, same_command
from headrace.errors import HeadraceError
from headrace.worker.report import REPORT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.cli.plan import Plan
    from headrace.settings import Settings
    from headrace.worker.place import Tally
    from headrace.worker.supervisor import Supervisor


def run_planned() -> int:
    """Do what the plan in the environment says, as a supervisor or as its child, and return the exit code.

    The plan is taken out of the environment, so that no command that a task starts takes it for its own.
    """
    plan = decode_plan(os.environ.pop(PLAN_VARIABLE))
    if REPORT_VARIABLE in os.environ:
        from headrace.cli.work import run_child

        return run_child(plan)
    try:
        return _supervise(plan)
    except HeadraceError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return exit_code(error)


def _supervise(plan: Plan) -> int:
    from headrace.logs import setup_logs
    from headrace.settings import load_settings
    from headrace.worker.supervisor import Supervisor

    settings = load_settings()
    setup_logs(settings)
    environment = {PLAN_VARIABLE: plan.encode()}
    if plan.reload:
        # Why: Python takes compiled code for current when the source has the same size and the same second of change,
        # which an edit made right after a start may have.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    supervisor = Supervisor(same_command(), plan.processes, burst=plan.burst, environment=environment)
    asyncio.run(_run(supervisor, plan, settings))
    if supervisor.refusal is not None:
        reason, code = supervisor.refusal
        sys.stderr.write(f"{reason}\n")
        return code
    print_summary(supervisor.tallies)
    return EXIT_FAILED if supervisor.kills else EXIT_OK


async def _run(supervisor: Supervisor, plan: Plan, settings: Settings) -> None:
    from headrace.cli.listen import answer_supervisor, listening
    from headrace.worker.shutdown import ShutdownSignals

    # Why around the port: whoever sees that it is there may send a signal before the supervisor listens to any.
    with ShutdownSignals(supervisor):
        async with listening(plan, settings, answer_supervisor(supervisor), supervisor.census):
            if plan.reload:
                from headrace.cli.reload import run_reloading

                await run_reloading(supervisor)
            else:
                await supervisor.run()


def print_summary(tallies: Sequence[Tally]) -> None:
    """Print what each process did, and several together."""
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
