"""How the demonstration looks: a live screen on a terminal, else a line a second; and in the end the same account."""

from __future__ import annotations

import io
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
        self._live.update(draw_scene(scene), refresh=True)


class PlainDisplay:
    """Print each sentence of the story when it happens, and at most one line a second of figures."""

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
        """Print what is new, and the present figures."""
        for moment in scene.story[self._told :]:
            self._print(f"{moment.at:5.1f} s  {moment.text}")
        self._told = len(scene.story)
        self._print(f"{scene.elapsed:5.1f} s  {describe_scene(scene)}")
        self._stream.flush()

    def _print(self, line: str) -> None:
        self._stream.write(line + "\n")


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


def draw_scene(scene: Scene) -> RenderableType:
    """Draw the present state."""
    done, total = (scene.recounted, scene.recount_of) if scene.phase == "recount" else (scene.completed, scene.jobs)
    words = {
        "starting": "starting the server and the workers",
        "jobs": f"{scene.completed:,} of {scene.jobs:,} files · {scene.rate:,.0f} files/s",
        "recount": f"recount without a queue: {scene.recounted:,} of {scene.recount_of:,} files",
    }
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=max(1, total), completed=done, width=40, complete_style="cyan", finished_style="green"),
        Text(words[scene.phase]),
        Text(f"{scene.elapsed:.1f} s", style="dim"),
    )
    queues = _table("queue", *QUEUE_COLUMNS, first="bold")
    for name, stats in scene.queues.items():
        queues.add_row(name, *(f"{getattr(stats, column):,}" for column in QUEUE_COLUMNS))
    pool = Text()
    if scene.pool is not None:
        pool = Text(f"pool of this process: {scene.pool.total} of {scene.pool.maximum} connections, ", style="dim")
        pool.append(f"{scene.pool.waiting} calls wait")
    parts: list[RenderableType] = [
        Text.assemble(("headrace demo", "bold cyan"), f"  {scene.what}"), "", bar, "",
        queues, "", draw_processes(scene), "", pool, "", draw_story(scene.story),
    ]  # fmt: skip
    return Padding(Group(*parts), (1, 2))


def draw_processes(scene: Scene) -> Table:
    """Draw a row for each process."""
    table = _table("process", "pid", "state", "files", "connections", "memory", first="bold", left=("state",))
    for row in scene.processes:
        killed = row.state.startswith("killed")
        table.add_row(
            row.name,
            str(row.pid),
            row.state,
            "" if row.files is None else f"{row.files:,}",
            "" if row.connections is None else str(row.connections),
            "" if row.memory_bytes is None else format_bytes(row.memory_bytes),
            style="red" if killed else "",
        )
    return table


def draw_story(story: list[Moment]) -> Table:
    """Draw what happened, a sentence a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column()
    for moment in story:
        table.add_row(f"{moment.at:.1f} s", Text(moment.text, style=MOODS[moment.mood]))
    return table


def draw_report(report: DemoReport) -> RenderableType:
    """Draw the account at the end."""
    left = Group(draw_figures(report), "", draw_guarantee(report))
    columns = Table.grid(padding=(0, 4))
    columns.add_row(left, draw_longest(report))
    title = Text.assemble(("headrace demo", "bold cyan"), f"  {report.what}, on {report.server}")
    parts: list[RenderableType] = [title, "", draw_story(report.story), "", columns, "", *draw_verdict(report)]
    return Padding(Group(*parts), (1, 2))


def draw_figures(report: DemoReport) -> Table:
    """Draw what the jobs counted beside what the recount counted."""
    table = _table("", "by the jobs", "recounted", "", first="")
    for name, label in LABELS.items():
        ours, theirs = getattr(report.counted, name), getattr(report.recounted, name)
        mark = Text("=", style="green") if ours == theirs else Text("≠", style="bold red")
        table.add_row("not Python 3" if name == "not_parsed" else label, f"{ours:,}", f"{theirs:,}", mark)
    return table


def draw_guarantee(report: DemoReport) -> Table:
    """Draw what became of the jobs."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    lost = Text(f"{report.lost}", style="bold red" if report.lost else "bold green")
    table.add_row("jobs lost", lost.append(f" of {report.jobs + report.fan_in_jobs:,}", style="not bold default"))
    twice = "\n".join(f"{count}: {reason}" for reason, count in report.twice.items())
    table.add_row("run twice", twice or "0")
    kill = report.kill
    recovered = kill.recovered_after if kill else None
    table.add_row("recovery", "none" if recovered is None else f"{recovered:.1f} s after the kill")
    table.add_row("throughput", f"{report.throughput:,.0f} jobs/s for {report.jobs_seconds:.1f} s")
    table.add_row("pool", f"at most {report.pool_most} connections, {report.pool_waited} calls waited")
    table.add_row("memory", f"at most {format_bytes(report.memory_most_bytes)} in all processes")
    return table


def draw_longest(report: DemoReport) -> Table:
    """Draw the longest functions and where they are."""
    table = _table("lines", "the longest functions", first="", left=("the longest functions",))
    table.columns[0].justify = "right"
    for function in report.longest:
        name = function.name.rpartition(".")[2]
        table.add_row(f"{function.lines:,}", Text.assemble(name, (f"  {function.path}:{function.line}", "dim")))
    return table


def draw_verdict(report: DemoReport) -> list[RenderableType]:
    """Draw the last words."""
    if report.ok:
        text = "Nothing was lost: every number agrees with the recount of the same files in one process."
        return [Text(text, style="bold green")]
    lines: list[RenderableType] = [Text("Not every number adds up:", style="bold red")]
    return lines + [Text(f"  {difference}", style="red") for difference in report.differences]


def write_svg(report: DemoReport, path: Path) -> None:
    """Write the account as a picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, markup=False, highlight=False)
    console.print(draw_report(report))
    console.save_svg(str(path), title="headrace demo")


def format_bytes(size: int) -> str:
    """Write a size in whole megabytes.

    Example:
        >>> format_bytes(73_400_320)
        '73 MB'
    """
    return f"{size / 1_000_000:.0f} MB"


def _table(*columns: str, first: str, left: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for at, column in enumerate(columns):
        if at == 0:
            table.add_column(column, style=first)
        else:
            table.add_column(column, justify="left" if column in left else "right")
    return table
