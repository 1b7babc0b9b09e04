"""The command `headrace bench`: what jobs cost here, a size for this machine, and the incident before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from headrace.cli.bench_size import FormatOption, PictureFormat, ServerOption, size
from headrace.cli.interrupt import run_interruptibly
from headrace.cli.output import EXIT_FAILED, fail, print_facts, print_table
from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.bench.incident.run import IncidentReport
    from headrace.bench.incident.table import Row

INCIDENT = "incident"

bench = typer.Typer(name="bench", invoke_without_command=True)


@bench.callback()
def _bench(  # noqa: PLR0913 - each is an option of the command
    context: typer.Context,
    *,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="WITH", help="`incident`, the file of an earlier --json, or other queues."),
    ] = None,
    gate: Annotated[
        str | None, typer.Option("--gate", metavar="PERCENT", help="Fail if a figure is worse by more than this.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME,...", help="Some workloads and measures; else all.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, max=100, help="Else 5; with --quick 2; of the incident 1.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="2 repeats, a tenth of the jobs.")] = False,
    url: ServerOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Whatever is drawn is drawn from it; else 1.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", min=0.01, max=10.0, help="Part of the jobs, and of the time; else 1.")
    ] = None,
    connections: Annotated[
        int | None,
        typer.Option("--connections", min=4, max=10_000, help="Of Headrace, for --compare incident; else its default."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every single figure to this file.", dir_okay=False)
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Draw the figures into this folder.", file_okay=False)
    ] = None,
    picture_format: FormatOption = PictureFormat.SVG,
    write: Annotated[
        Path | None, typer.Option("--write", help="Put the table of the incident into this Markdown file.")
    ] = None,
) -> None:
    """Measure what jobs cost on this machine.

    It uses servers of its own, or with --url yours below a key prefix of its own, and leaves nothing behind but the
    files that are asked for. The exit code is 1 when a figure is beyond the gate, or Headrace misses one of the
    incident's.
    """
    if context.invoked_subcommand is not None:
        return
    check_folders(json_file, plots, picture_format)
    given = {
        "--only": only, "--gate": gate, "--url": url, "--seed": seed, "--plots": plots, "--write": write,
        "--connections": connections,
    }  # fmt: skip
    _refuse_without_part(compare, [name for name, value in given.items() if value is not None])
    scale = (0.1 if quick else 1.0) if scale is None else scale
    seed = 1 if seed is None else seed
    outputs = Outputs(json_file, plots, picture_format, write)
    if compare == INCIDENT:
        _compare_incident(IncidentAsked(seed, min(scale, 1.0), connections or 0, repeats or 1), outputs)
        return
    repeats = (2 if quick else 5) if repeats is None else repeats
    if compare is not None and not compare.endswith(".json"):
        _compare_peers(compare, scale, repeats, json_file)
        return
    _measure(Asked(only, repeats, scale, seed, url), compare, gate, outputs)


def _refuse_without_part(compare: str | None, given: Sequence[str]) -> None:
    """Refuse options that have no part in what is asked for, so that none is passed over.

    Raises:
        OptionError: There is one.
    """
    if compare is None or compare.endswith(".json"):
        if found := [name for name in given if name in {"--write", "--connections"}]:
            raise OptionError(
                f"{' and '.join(found)}: this is about the incident. Add --compare incident, or leave it out."
            )
        return
    if "--url" in given:
        raise OptionError(
            f"--url: --compare {compare} always uses servers of its own, for it clears them. Leave one of the two out."
        )
    parts = {"--seed", "--plots", "--write", "--connections"} if compare == INCIDENT else set()
    if found := [name for name in given if name not in parts]:
        raise OptionError(f"{' and '.join(found)}: this has no part in --compare {compare}. Leave one of the two out.")


class Outputs(NamedTuple):
    """What is to be written, and where."""

    json_file: Path | None
    plots: Path | None
    picture_format: PictureFormat
    write: Path | None = None

    def keep(self, report: object, draw: Callable[[], dict[str, str]]) -> None:
        """Write a report, and its pictures, as far as they are asked for."""
        if self.json_file is not None:
            write_json(self.json_file, report)
        if self.plots is not None:
            write_plots(self.plots, draw(), self.picture_format)


class Asked(NamedTuple):
    """What the command line asks to measure."""

    only: str | None
    repeats: int
    scale: float
    seed: int
    url: str | None


def _measure(asked: Asked, compare: str | None, gate: str | None, outputs: Outputs) -> None:
    from headrace.bench.measure import MEASURES, Plan, run_bench
    from headrace.bench.report import check_gate, compare_figures, parse_gate, read_report
    from headrace.bench.shown import CHANGE_COLUMNS, COLUMNS, change_rows, draw_figures, figure_rows
    from headrace.bench.workloads import WORKLOADS

    percent = None if gate is None else parse_gate(gate)
    if gate is not None and compare is None:
        raise OptionError(f"--gate {gate}: there is nothing to hold the figures against. Add --compare REPORT.json.")
    earlier = None if compare is None else read_report(Path(compare))
    names = _choose(asked.only, (*WORKLOADS, *MEASURES))
    report = run_interruptibly(
        lambda: run_bench(Plan(names, asked.repeats, asked.scale, asked.seed), tell, asked.url), "benchmark"
    )
    print_facts(report.facts.items())
    typer.echo()
    print_table(COLUMNS, figure_rows(report.figures), right=COLUMNS[2:])
    outputs.keep(report, lambda: draw_figures(report.figures))
    if earlier is None:
        return
    taken = [figure for figure in earlier.figures if asked.only is None or figure.name.split()[0] in names]
    changes = compare_figures(taken, report.figures)
    typer.echo()
    if earlier.inputs != report.inputs:
        tell("The two runs had other inputs (seed, scale, repeats or workloads): compare them with care.")
    if earlier.facts["machine"] != report.facts["machine"]:
        tell(f"The earlier run was on another machine: {earlier.facts['machine']}.")
    print_table(CHANGE_COLUMNS, change_rows(changes, percent), right=CHANGE_COLUMNS[2:5])
    if percent is not None and (beyond := check_gate(changes, percent)):
        fail(f"Worse by more than {percent:g} %, or not taken: {', '.join(one.name for one in beyond)}.", EXIT_FAILED)


def _choose(only: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that are asked for, in the order in which they are measured."""
    if only is None:
        return known
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    if not wanted or wanted - set(known):
        raise OptionError(f"--only {only}: expected some of {', '.join(known)}.")
    return tuple(name for name in known if name in wanted)


def _compare_peers(compare: str, scale: float, repeats: int, json_file: Path | None) -> None:
    from headrace.bench.peers import check_peers, compare_peers

    names = check_peers(compare)
    count = max(100, round(5_000 * scale))
    code = run_interruptibly(
        lambda: compare_peers(names, count=count, repeats=repeats, json_file=json_file and json_file.absolute()),
        "benchmark",
    )
    if code:
        raise typer.Exit(EXIT_FAILED)


class IncidentAsked(NamedTuple):
    """What the command line asks to compare."""

    seed: int
    scale: float
    connections: int
    repeats: int

    def options(self) -> str:
        """Return the options that make the load another one than by default."""
        changed = {"--scale": (self.scale, 1.0), "--seed": (self.seed, 1), "--connections": (self.connections, 0)}
        return "".join(f" {name} {value:g}" for name, (value, default) in changed.items() if value != default)


def _compare_incident(asked: IncidentAsked, outputs: Outputs) -> None:
    from headrace.bench.incident.charts import draw_charts
    from headrace.bench.incident.run import compare_incident
    from headrace.bench.incident.table import make_rows, write_markdown
    from headrace.bench.incident.workload import Workload
    from headrace.bench.marks import check_marks, fill_marks

    if outputs.write is not None:
        check_marks(outputs.write, INCIDENT)
    workload = Workload(seed=asked.seed, connections=asked.connections)
    workload = workload if asked.scale == 1.0 else workload.shortened(asked.scale)
    report = run_interruptibly(lambda: compare_incident(workload, tell, asked.repeats), "benchmark")
    rows = make_rows(report)
    _print_incident(report, rows)
    outputs.keep(report, lambda: draw_charts(report))
    if outputs.write is not None:
        fill_marks(outputs.write, INCIDENT, write_markdown(rows, report.facts, asked.repeats, asked.options()))
    missed = [row.name for row in rows if row.met is False]
    if missed:
        fail(f"Headrace missed: {', '.join(missed)}. The load of the machine is in the head of the table.", EXIT_FAILED)


def _print_incident(report: IncidentReport, rows: Sequence[Row]) -> None:
    from headrace.bench.incident.table import COLUMNS, cells

    print_facts(report.facts.items())
    typer.echo()
    print_table(COLUMNS, [cells(row) for row in rows], right=COLUMNS[2:4])
    hidden = [row.name for row in rows if row.shown is False]
    if hidden:
        runs = "in this run" if len(report.runs) == 1 else "in every run"
        typer.echo(f"\nNot shown by the incident's design on this machine, {runs}: {', '.join(hidden)}.")


def tell(line: str) -> None:
    """Say what is being done; what was found goes to the standard output."""
    typer.echo(line, err=True)


def check_folders(json_file: Path | None, plots: Path | None, picture_format: PictureFormat) -> None:
    """Make sure that what is to be written has a folder to go to, and can be drawn, before a long run.

    Raises:
        OptionError: There is none, or it cannot.
    """
    if plots is None and picture_format is not PictureFormat.SVG:
        raise OptionError(f"--format {picture_format}: nothing is drawn. Add --plots DIR.")
    if picture_format is PictureFormat.PNG:
        from headrace.verify.plot_png import check_png

        check_png()
    for option, path in (("--json", json_file), ("--plots", plots)):
        if path is not None and not path.parent.is_dir():
            raise OptionError(f"{option} {path}: there is no folder {path.parent}. Make it first, or name another one.")


def write_json(path: Path, report: object) -> None:
    """Write a report."""
    import msgspec

    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def write_plots(folder: Path, pictures: dict[str, str], picture_format: PictureFormat) -> None:
    """Write pictures by their names, which end with .svg."""
    folder.mkdir(exist_ok=True)
    for name, text in pictures.items():
        if picture_format is PictureFormat.PNG:
            from headrace.verify.plot_png import draw_png

            (folder / name).with_suffix(".png").write_bytes(draw_png(text))
        else:
            (folder / name).write_text(text, encoding="utf-8")


bench.command("size")(size)
