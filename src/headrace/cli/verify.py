"""The command `headrace verify`: proof on the user's own settings and server, with load and faults."""

from __future__ import annotations

import logging
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.connect import UrlOption  # noqa: TC001 - typer reads the annotations
from headrace.cli.interrupt import run_interruptibly
from headrace.cli.output import JsonOption  # noqa: TC001 - as above
from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.verify.course import Course
    from headrace.verify.run import Found

#: A soak takes at least and at most so long, seconds.
SOAK_LEAST = 60.0
SOAK_MOST = 86_400.0


def verify(
    app: Annotated[
        str, typer.Option("--app", help="Your app as module:attribute: its middleware and lifespans run too.")
    ] = "",
    soak: Annotated[
        str | None, typer.Option("--soak", help="Repeat the load for this long, such as 10m, 2h or 90s.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the evidence into this folder.", file_okay=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.", dir_okay=False)] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="BEFORE AFTER", help="Run nothing; compare two files report.json."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="DIR", help="Run nothing; check the files of a report by their hashes."),
    ] = None,
    url: UrlOption = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Take 15 seconds instead of 60: less load, one fault.")
    ] = False,
    destructive: Annotated[
        bool, typer.Option("--destructive", help="Also restart and kill the server of REDIS_URL (SHUTDOWN, SIGKILL).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that settings, server and engine hold what is promised: under load, at rest, and through faults.

    It uses REDIS_URL, or else a server of its own, below a key prefix of its own, and leaves nothing behind. The exit
    code is 0 when every check passes, 1 when some are partial, and 2 when one fails.
    """
    if compare is not None:
        _compare(*compare, as_json=as_json)
        return
    if check is not None:
        _check(check, as_json=as_json)
        return
    # What the faults make this process log is part of them; the logs of the workers are what counts.
    logging.getLogger("headrace").addHandler(logging.NullHandler())
    course, tell = _choose(soak, quick=quick), _teller()
    found = run_interruptibly(lambda: _run(course, url, app, tell, destructive=destructive), "verification")
    _show(found, report, junit, as_json=as_json)
    raise typer.Exit(found.verdict.exit_code)


def _show(found: Found, folder: Path | None, junit: Path | None, *, as_json: bool) -> None:
    """Print the outcomes, and write what was asked for."""
    import os

    from headrace.cli.doctor import print_outcomes
    from headrace.cli.output import print_json
    from headrace.verify.ci import append_summary, save_junit
    from headrace.verify.report import build_report, write_bundle

    report = build_report(found)
    if as_json:
        print_json(report)
    else:
        print_outcomes(report.outcomes, report.verdict)
        typer.echo(f"Course {report.course}, {report.seconds:.0f} s, on {report.server or 'an unknown server'}")
    # The evidence first: a file that cannot be written must not cost what a run has found.
    if folder is not None:
        digest = write_bundle(report, folder)
        typer.echo(f"Evidence in {folder}; SHA-256 of its manifest {digest}", err=as_json)
    append_summary(os.environ, report.outcomes, report.verdict)
    if junit is not None:
        save_junit(junit, report.outcomes, report.seconds)


def _check(folder: Path, *, as_json: bool) -> None:
    from headrace.cli.output import print_json
    from headrace.verify.report import check_bundle

    digest, wrong = check_bundle(folder)
    if as_json:
        print_json({"manifest_sha256": digest, "wrong": wrong})
    else:
        for line in wrong or ["every file is as it was written"]:
            typer.echo(line)
        typer.echo(f"SHA-256 of the manifest {digest}")
    if wrong:
        raise typer.Exit(2)


def _compare(before: Path, after: Path, *, as_json: bool) -> None:
    from headrace.cli.output import print_json, print_table
    from headrace.verify.compare import compare
    from headrace.verify.report import read_report

    found = compare(read_report(before), read_report(after))
    if as_json:
        print_json(found)
        return
    rows = [
        (change.check, change.figure, _figure(change.before), _figure(change.after), change.text, change.verdict)
        for change in found.changes
    ]
    columns = ("check", "figure", "before", "after", "change", "beyond the noise")
    print_table(columns, rows, right=columns[2:5])
    for grade in found.grades:
        typer.echo(f"{grade.check}: {grade.before} before, {grade.after} after")
    for note in found.notes:
        typer.echo(f"note: {note}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"  # noqa: PLR2004 - four digits


def parse_span(text: str) -> float:
    """Read a span of time such as 90s, 10m or 2h, in seconds.

    Raises:
        OptionError: It is none, or out of its bounds.

    Example:
        >>> parse_span("10m")
        600.0
    """
    units = {"s": 1.0, "m": 60.0, "h": 3_600.0}
    number = text.strip().removesuffix(text.strip()[-1:] if text.strip()[-1:] in units else "")
    unit = units.get(text.strip()[-1:], 1.0)
    if number.isascii() and number.isdecimal() and SOAK_LEAST <= int(number[:9]) * unit <= SOAK_MOST:
        return int(number) * unit
    raise OptionError(f"--soak {text}: expected a whole number with s, m or h, from 60s to 24h, such as 10m.")


def _choose(span: str | None, *, quick: bool) -> Course:
    from headrace.verify.course import FULL, QUICK, soak

    if span is not None and quick:
        raise OptionError("--quick and --soak exclude each other. Choose one of them.")
    if span is not None:
        return soak(parse_span(span))
    return QUICK if quick else FULL


def _teller() -> Callable[[str], None]:
    """Return what shows progress: lines on the standard error, so that results can be piped."""
    import time

    began = time.monotonic()

    def tell(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:5.1f} s  {text}\n")
        sys.stderr.flush()

    return tell


async def _run(course: Course, url: str | None, app: str, tell: Callable[[str], None], *, destructive: bool) -> Found:
    from headrace.verify.run import verify as run

    return await run(course, url=url, app=app, destructive=destructive, tell=tell)
