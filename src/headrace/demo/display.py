"""How the demonstration looks: a live screen on a terminal, else a line a second; and in the end the same account."""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING, Final, Protocol, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headrace.demo.check import LABELS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from rich.console import RenderableType

    from headrace.demo.scene import DemoReport, Moment, Scene

#: Width where there is no terminal that says its own, and the widest that is used.
WIDTH: Final = 100
MOODS: Final = {"plain": "", "bad": "bold red", "good": "green"}
QUEUE_COLUMNS: Final = ("waiting", "active", "completed", "failed")


class Display(Protocol):
    """Shows the demonstration while it runs; `interval` is the time in seconds between two looks."""

    interval: float

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the screen as it was."""
        ...

    def show(self, scene: Scene) -> None:
        """Show the present state."""
        ...


class LiveDisplay:
    """Keep one screen up to date on a terminal."""

    interval = 0.2

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, scene: Scene) -> None:
        """Draw the present state over the last one."""
        self._live.update(draw_scene(scene, self._console.height), refresh=True)


class PlainDisplay:
    """Print what happened once a second, and the figures when nothing did."""

    interval = 1.0

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream
        self._told = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def show(self, scene: Scene) -> None:
        """Print what is new in the story, else the present figures."""
        news = scene.story[self._told :]
        self._told = len(scene.story)
        for moment in news:
            self._stream.write(f"{moment.at:5.1f} s  {moment.text}\n")
        if not news:
            self._stream.write(f"{scene.elapsed:5.1f} s  {describe_scene(scene)}\n")
        self._stream.flush()


class NoDisplay:
    """Show nothing."""

    interval = 1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def show(self, scene: Scene) -> None:
        """Do nothing."""


def make_console() -> Console:
    """Return a console for the standard output, no wider than the account needs."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Why: a terminal that cannot show a character shows a question mark, and the demonstration goes on.
        sys.stdout.reconfigure(errors="replace")
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal or console.width > WIDTH:
        console = Console(markup=False, emoji=False, highlight=False, width=WIDTH)
    return console


def make_display(console: Console) -> Display:
    """Return what suits the standard output."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(sys.stdout)  # type: ignore[arg-type]  # any text stream will do


def describe_scene(scene: Scene) -> str:
    """Say the present state in one line."""
    if scene.phase == "recount":
        return f"recount in this process: {scene.recounted:,} of {scene.recount_of:,} files"
    counts = {name: sum(getattr(stats, name) for stats in scene.queues.values()) for name in QUEUE_COLUMNS}
    jobs = ", ".join(f"{counts[name]:,} {name}" for name in QUEUE_COLUMNS if counts[name] or name != "failed")
    pool = f"pool {scene.pool.total} of {scene.pool.maximum}, {scene.pool.waiting} wait" if scene.pool else ""
    memory = sum(row.memory_bytes or 0 for row in scene.processes)
    return f"{jobs} jobs; {scene.rate:,.0f} files/s; {pool}; memory {format_bytes(memory)}"


def draw_scene(scene: Scene, height: int) -> RenderableType:
    """Draw the present state in so many lines: of the story, as much of its end as fits."""
    recounts = scene.phase == "recount"
    done, total = (scene.recounted, scene.recount_of) if recounts else (scene.completed, scene.jobs)
    words = {
        "starting": "starting the server and two workers",
        "jobs": f"{scene.completed:,} of {scene.jobs:,} files, {scene.rate:,.0f} a second",
        "recount": f"{scene.recounted:,} of {scene.recount_of:,} files counted again in this process",
    }
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=max(1, total), completed=done, width=36, complete_style="cyan", finished_style="green"),
        words[scene.phase],
        Text(f"{scene.elapsed:.1f} s", style="dim"),
    )
    queues = _table("queue", *QUEUE_COLUMNS)
    for name, stats in scene.queues.items():
        queues.add_row(name, *(f"{getattr(stats, column):,}" for column in QUEUE_COLUMNS))
    title = _title(f"{scene.jobs:,} jobs on {scene.what}")
    parts: list[RenderableType] = [title, "", bar, "", queues, "", draw_processes(scene)]
    if scene.pool is not None:
        pool = (
            f"pool of the demo: {scene.pool.total} of {scene.pool.maximum} connections, {scene.pool.waiting} calls wait"
        )
        parts.append(Text(pool, style="dim"))
    # Beside the rows of the two tables there are 12 lines above the story, and the cursor stands below it.
    room = height - 13 - len(scene.queues) - len(scene.processes)
    if scene.story and room > 0:
        parts += ["", draw_story(scene.story[-room:])]
    return Padding(Group(*parts), (1, 2, 0, 2))


def draw_processes(scene: Scene) -> Table:
    """Draw a row for each process."""
    table = _table("process", "pid", "state", "files", "connections", "memory", left=("state",))
    for row in scene.processes:
        table.add_row(
            row.name,
            str(row.pid),
            row.state,
            "" if row.files is None else f"{row.files:,}",
            "" if row.connections is None else str(row.connections),
            "" if row.memory_bytes is None else format_bytes(row.memory_bytes),
            style="red" if row.state.startswith("killed") else "",
        )
    return table


def draw_story(story: list[Moment]) -> Table:
    """Draw what happened, a sentence a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column()
    for moment in sorted(story, key=lambda moment: moment.at):
        table.add_row(f"{moment.at:.1f} s", Text(moment.text, style=MOODS[moment.mood]))
    return table


def draw_report(report: DemoReport) -> RenderableType:
    """Draw the account at the end."""
    columns = Table.grid(padding=(0, 5))
    columns.add_row(draw_figures(report), draw_longest(report))
    title = _title(f"{report.jobs:,} jobs on {report.what}, with {report.server}")
    parts: list[RenderableType] = [title, "", draw_story(report.story), "", columns, "", draw_guarantee(report)]
    return Group(*parts, "", *draw_verdict(report))


def draw_figures(report: DemoReport) -> Table:
    """Draw what the jobs counted beside what the recount counted."""
    table = _table("", "jobs", "recount", "")
    for name, label in LABELS.items():
        ours, theirs = getattr(report.counted, name), getattr(report.recounted, name)
        mark = Text("=", style="green") if ours == theirs else Text("≠", style="bold red")
        table.add_row("not parsed" if name == "not_parsed" else label, f"{ours:,}", f"{theirs:,}", mark)
    return table


def draw_longest(report: DemoReport) -> Table:
    """Draw the longest functions and where they are."""
    table = _table("lines", "the longest functions", left=("the longest functions",))
    table.columns[0].justify = "right"
    for function in report.longest:
        name = function.name.rpartition(".")[2]
        # Why not cut: a reader shall be able to look each of them up.
        place = Text(f" {function.path}:{function.line}", style="dim")
        table.add_row(f"{function.lines:,}", Text(name, overflow="fold").append_text(place))
    return table


def draw_guarantee(report: DemoReport) -> Table:
    """Draw what became of the jobs."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    lost = Text(f"{report.lost:,}", style="bold red" if report.lost else "bold green")
    table.add_row("jobs lost", Text.assemble(lost, f" of {report.jobs + report.fan_in_jobs:,}"))
    twice = "; ".join(f"{count}: {reason}" for reason, count in report.twice.items())
    table.add_row("run twice", twice or "0")
    kill = report.kill
    recovered = kill.recovered_after if kill else None
    table.add_row(
        "recovery", "none" if recovered is None else f"{recovered:.1f} s from the kill to the last of its jobs"
    )
    table.add_row("throughput", f"{report.throughput:,.0f} jobs/s over {report.jobs_seconds:.1f} s, the kill included")
    pool = f"at most {report.pool_most} connections here and {report.worker_connections_most} in a worker; "
    table.add_row("pool", pool + f"{report.pool_waited} calls waited for one")
    table.add_row("memory", f"at most {format_bytes(report.memory_most_bytes)} in all processes, the server included")
    for name, reason in [*report.not_parsed.items()][:1]:
        table.add_row("not parsed", f"such as {name}: {reason.removeprefix('SyntaxError: ')}")
    return table


def draw_verdict(report: DemoReport) -> list[RenderableType]:
    """Draw the last words."""
    if report.ok:
        return [Text("Nothing was lost, and every number adds up.", style="bold green")]
    lines: list[RenderableType] = [Text("Not every number adds up:", style="bold red")]
    return lines + [Text(f"  {difference}", style="red") for difference in report.differences]


def print_report(report: DemoReport, console: Console) -> None:
    """Print the account; lines that no terminal shows have no blanks at their end."""
    if console.is_terminal:
        console.print(Padding(draw_report(report), (1, 2)))
        return
    with console.capture() as capture:
        console.print(draw_report(report))
    for line in capture.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def write_svg(report: DemoReport, path: Path) -> None:
    """Write the account as a picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, markup=False, highlight=False)
    console.print(Padding(draw_report(report), (0, 1)))
    svg = console.export_svg(title="headrace demo", unique_id="demo")
    # Why: the picture shall load nothing from elsewhere; any font of fixed width will do.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")


def format_bytes(size: int) -> str:
    """Write a size in whole megabytes.

    Example:
        >>> format_bytes(73_400_320)
        '73 MB'
    """
    return f"{size / 1_000_000:.0f} MB"


def _title(text: str) -> Text:
    return Text.assemble(("headrace demo", "bold cyan"), " ", text)


def _table(*columns: str, left: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if not at or column in left else "right")
    return table
