"""The command `headrace doctor`: settings and server, looked at in a second or two without any load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from headrace.cli.connect import UrlOption  # noqa: TC001 - typer reads the annotations
from headrace.cli.output import JsonOption  # noqa: TC001 - as above

if TYPE_CHECKING:
    from headrace.verify.outcome import Outcome, Verdict


def doctor(url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Examine the settings and the server, without load and without writing anything.

    The exit code is 0 when every check passes, 1 when some are partial, and 2 when one fails. `headrace verify` goes on
    from there, with load and faults.
    """
    import asyncio

    from headrace.cli.output import print_json
    from headrace.verify.doctor import examine
    from headrace.verify.outcome import conclude

    outcomes = asyncio.run(examine(url))
    verdict = conclude(outcomes)
    if as_json:
        print_json({"verdict": verdict, "checks": outcomes})
    else:
        print_outcomes(outcomes, verdict)
    raise typer.Exit(verdict.exit_code)


def print_outcomes(outcomes: list[Outcome], verdict: Verdict) -> None:
    """Print a table of checks, what to do about those that did not pass, and the verdict."""
    from headrace.cli.output import print_facts, print_table

    rows = [(each.name, str(each.grade), each.measured, each.threshold) for each in outcomes]
    print_table(("check", "grade", "measured", "threshold"), rows)
    remedies = [(each.name, each.remedy) for each in outcomes if each.remedy.strip()]
    if remedies:
        typer.echo("\nWhat to do:")
        print_facts(remedies)
    typer.echo(f"\nVerdict: {verdict}")
