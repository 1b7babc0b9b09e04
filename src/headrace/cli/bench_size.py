"""The command `headrace bench size`: slots, processes and connections for a kind of job on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.interrupt import run_interruptibly
from headrace.cli.output import EXIT_FAILED, fail, is_terminal, print_facts, print_table

if TYPE_CHECKING:
    from headrace.bench.choice import Point
    from headrace.bench.size import SizeReport


class PictureFormat(StrEnum):
    """How pictures are written."""

    SVG = "svg"
    PNG = "png"


#: Annotation of the option `--format`.
FormatOption = Annotated[PictureFormat, typer.Option("--format", help="Of the pictures; png needs the extra plots.")]
#: Annotation of the option `--url`.
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Your server, which gets the load; the word REDIS_URL for that of the settings. Else a private one.",
    ),
]
#: Share of the rate of a size that its second measurement reaches, unless the machine was disturbed.
CONFIRMS = 0.8
COLUMNS = ("processes", "slots", "connections", "jobs/s", "CPU", "borrowed", "wait p99")


def size(
    *,
    wait_ms: Annotated[
        float, typer.Option("--wait-ms", min=0.0, max=10_000.0, help="Time that a job waits for something outside.")
    ] = 50.0,
    cpu_ms: Annotated[float, typer.Option("--cpu-ms", min=0.0, max=1_000.0, help="Processor time of a job.")] = 0.5,
    calls: Annotated[
        int, typer.Option("--calls", min=0, max=100, help="Redis commands of a job, through the app's pool.")
    ] = 0,
    goal: Annotated[
        float | None, typer.Option("--goal", min=0.001, help="Jobs a second that are wanted; else the most.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=60.0, help="How long one point should take.")
    ] = 1.0,
    url: ServerOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the curve to this file.", dir_okay=False)
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Draw the curve into this folder.", file_okay=False)
    ] = None,
    picture_format: FormatOption = PictureFormat.SVG,
) -> None:
    """Measure a kind of job, and recommend slots, processes and connections for it on this machine.

    Slots are doubled as long as that gains 10 %; then come processes, up to the cores; then the recommended pool is
    tried. The exit code is 1 when the goal is not reached.
    """
    from headrace.bench.choice import Profile
    from headrace.bench.size import measure_size
    from headrace.cli.bench import Outputs, check_folders, tell

    check_folders(json_file, plots, picture_format)
    profile = Profile(wait_ms, cpu_ms, calls)
    report = run_interruptibly(lambda: measure_size(profile, goal, tell, seconds, url), "benchmark")
    _print(report)
    Outputs(json_file, plots, picture_format).keep(report, lambda: _draw(report))
    if goal is not None and max(point.rate for point in report.points) < goal:
        fail(f"{goal:g} jobs/s were not reached on this machine.", EXIT_FAILED)


def _print(report: SizeReport) -> None:
    print_facts(report.facts.items())
    typer.echo()
    print_table(COLUMNS, [_row(point) for point in (*report.points, report.confirmed)], right=COLUMNS)
    if is_terminal():
        typer.echo()
    found = report.recommended
    print_facts(
        [
            ("processes", f"{found.processes}  (headrace worker --processes {found.processes})"),
            ("slots", f"{found.slots}  (QUEUE_CONCURRENCY={found.slots})"),
            ("connections", f"{found.connections}  (REDIS_MAX_CONNECTIONS={found.connections})"),
            ("measured so", f"{report.confirmed.rate:,.0f} jobs/s"),
            ("because", found.reason),
        ]
    )
    if report.confirmed.rate < CONFIRMS * found.rate:
        typer.echo(
            f"\nThe last line shows {report.confirmed.rate / found.rate:.0%} of what was measured of this size before: "
            "something else kept the machine busy. Measure again, longer, with --seconds 5."
        )


def _row(point: Point) -> tuple[object, ...]:
    return (
        point.processes,
        point.slots,
        point.connections,
        f"{point.rate:,.0f}",
        f"{point.cpu_percent:.0f} %",
        point.borrowed,
        f"{point.wait_ms:.1f} ms",
    )


def _draw(report: SizeReport) -> dict[str, str]:
    from headrace.verify.plot import Line, draw_lines

    single = [(float(point.slots), point.rate) for point in report.points if point.processes == 1]
    lines = [Line("1 process", single)]
    return {"size.svg": draw_lines("Jobs a second over slots", lines, across="slots", up="jobs/s")}
