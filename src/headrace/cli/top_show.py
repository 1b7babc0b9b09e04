"""How `headrace top` shows a view: drawn in place on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TextIO

import typer

from headrace.cli.output import format_value, print_lines

if TYPE_CHECKING:
    from headrace.cli.top_look import QueueRow, View
    from headrace.fleet.snapshot import Snapshot

MIB: Final = 1_048_576
#: Rows of one table on a terminal; the busiest come first, and the rest is counted.
ROWS: Final = 20
#: Cells that a text is folded to at most on a narrow terminal, and those between two columns.
FOLDED: Final = 12
GAP: Final = 2
#: A duty that starts later than this is worth a look, seconds.
LATE: Final = 0.25


class Table(NamedTuple):
    """One table: its title, the heads of its columns, and its rows; columns after the first text ones are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    texts: int = 1

    def cut(self, most: int) -> Table:
        """Return the table with this many rows at most, and the number of those left out in its title."""
        if len(self.rows) <= most:
            return self
        return self._replace(rows=self.rows[:most], title=f"{self.title}, {len(self.rows) - most} more")

    def fit(self, width: int) -> Table:
        """Return the table without the last columns that a terminal has no room for; its title says which.

        The texts stay, and the first column of numbers behind them: a number says nothing without its name.
        """
        taken = -GAP
        for at, least in enumerate(self.widths()):
            taken += GAP + least
            if taken > width and at > self.texts:
                left_out = ", ".join(self.columns[at:])
                rows = [row[:at] for row in self.rows]
                return self._replace(
                    columns=self.columns[:at], rows=rows, title=f"{self.title} (no room for {left_out})"
                )
        return self

    def widths(self) -> list[int]:
        """Return how many cells each column needs at least; a long text may be folded."""
        from rich.cells import cell_len

        found = []
        for at, column in enumerate(self.columns):
            natural = max([cell_len(column), *(cell_len(format_value(row[at])) for row in self.rows)])
            found.append(min(natural, max(cell_len(column), FOLDED)) if at < self.texts else natural)
        return found


def tables(view: View, process: str | None) -> list[Table]:
    """Arrange a view as tables: the fleet, or one process in full."""
    if process is None:
        return [_queues(view.queues), _processes(view.processes), *_silent(view)]
    if process == "all":
        return [table for one in view.processes for table in _in_full(one)] + _silent(view)
    found = view.find(process)
    if found is None:
        return [Table(f"process {process} does not answer", ("process", "state"), [(process, "silent")], 2)]
    return _in_full(found)


def _in_full(found: Snapshot) -> list[Table]:
    return [
        _processes([found]),
        _pool(found),
        *_holders(found),
        _duties(found),
        _census(found),
        *_subscribers(found),
        _histories(found),
    ]


def headline(view: View) -> str:
    """Say in one line where and when, and what is live in all processes together."""
    live = ", ".join(_several(count, kind) for kind, count in sorted(view.counts.items())) or "nothing live"
    jobs = sum(one.running for one in view.processes)
    when = time.strftime("%H:%M:%S", time.localtime(view.at))
    return f"{view.server}  {when}  {_several(len(view.processes), 'process')}, {_several(jobs, 'job')} running; {live}"


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 'es' if what.endswith('s') else 's'}"


def show_lines(view: View, process: str | None) -> None:
    """Print a view as plain lines: one row a line, two spaces between columns."""
    typer.echo(headline(view))
    for table in tables(view, process):
        typer.echo(f"\n{table.title}")
        texts = [[format_value(value) for value in row] for row in table.rows]
        print_lines(table.columns, texts, right=table.columns[table.texts :])


class Screen:
    """The view on a terminal, drawn anew in place.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        # Why: a name such as [bold] or :key: is data, not markup.
        self._console = Console(file=stream, markup=False, emoji=False, highlight=False)
        # Why no refresh by itself: that would be a thread that draws what has not changed.
        self._live = Live(console=self._console, auto_refresh=False, screen=self._console.is_terminal)

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Give it back."""
        self._live.stop()

    def show(self, view: View, process: str | None) -> None:
        """Draw a view."""
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = [Text(headline(view), style="bold")]
        parts += [_rich(table.cut(ROWS).fit(self._console.width)) for table in tables(view, process)]
        parts.append(Text("Ctrl+C ends; -p PID shows one process in full", style="dim"))
        self._live.update(Group(*parts), refresh=True)


def _rich(table: Table) -> Any:
    from rich.table import Table as RichTable

    drawn = RichTable(box=None, header_style="bold cyan", pad_edge=False, title=table.title, title_justify="left")
    for at, (column, least) in enumerate(zip(table.columns, table.widths(), strict=True)):
        drawn.add_column(
            column, justify="left" if at < table.texts else "right", no_wrap=at >= table.texts, min_width=least
        )
    for row in table.rows:
        drawn.add_row(*(format_value(value) for value in row))
    return drawn


def _queues(rows: list[QueueRow]) -> Table:
    from headrace.reason import span

    columns = (
        "queue", "paused", "waiting", "delayed", "active", "dead", "served by",
        "in/s", "done/s", "retried/s", "stalled/s", "oldest",
    )  # fmt: skip
    found: list[tuple[object, ...]] = [
        (
            row.name, row.paused, row.waiting, row.delayed, row.active, row.failed, row.served,
            row.arriving_rate, row.done_rate, row.retried_rate, row.stalled_rate,
            span(row.oldest_ms) if row.oldest_ms else None,
        )
        for row in rows
    ]  # fmt: skip
    return Table("queues", columns, found)


def _processes(processes: list[Snapshot]) -> Table:
    columns = (
        "host", "pid", "workers", "slots", "running", "held", "connections", "waiters", "pool p95 ms",
        "memory MB", "step", "timers", "tasks", "threads", "children", "late ms",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for one in processes:
        pool, memory, counts = one.pool, one.memory, one.counts
        late = max((duty.late_maximum for duty in one.duties), default=0.0)
        rows.append(
            (
                one.host, one.pid, one.workers, one.concurrency, one.running, one.buffered,
                f"{pool.active}/{pool.total}/{pool.maximum}", pool.waiting, round(pool.wait_p95 * 1000, 1),
                f"{memory.used_bytes // MIB}/{memory.budget_bytes // MIB}", memory.step,
                *(counts.get(kind, 0) for kind in ("timer", "task", "thread", "process")), round(late * 1000, 1),
            )
        )  # fmt: skip
    return Table("processes", columns, rows)


def _silent(view: View) -> list[Table]:
    if not view.silent:
        return []
    rows: list[tuple[object, ...]] = [(one.worker, one.host, one.pid, f"{one.seen:.0f} s ago") for one in view.silent]
    title = "workers that did not answer: ended, stopped, cut off, or their event loop is blocked by a task"
    return [Table(title, ("worker", "host", "pid", "registered"), rows, 2)]


def _pool(one: Snapshot) -> Table:
    columns = (
        "at most", "open", "in use", "idle", "waiting", "most waiting", "timed out",
        "wait p95 ms", "response p95 ms",
    )  # fmt: skip
    pool = one.pool
    row = (
        pool.maximum, pool.total, pool.active, pool.idle, pool.waiting, pool.waiting_highest, pool.timeouts_total,
        round(pool.wait_p95 * 1000, 1), round(pool.response_p95 * 1000, 1),
    )  # fmt: skip
    return Table("pool: connections, and calls that wait for one", columns, [row], 0)


def _holders(one: Snapshot) -> list[Table]:
    if not one.pool.holders:
        return []
    columns = ("lane", "owner", "purpose", "taken at", "held s")
    rows: list[tuple[object, ...]] = [
        (each.lane, each.owner, each.purpose or None, each.place, each.held) for each in one.pool.holders
    ]
    return [Table("connections that clients hold, the longest first", columns, rows, 4)]


def _duties(one: Snapshot) -> Table:
    columns = ("duty", "owner", "note", "every s", "runs", "skipped", "failed", "late ms", "longest ms", "total s")
    rows: list[tuple[object, ...]] = [
        (
            duty.name, duty.owner, "late" if duty.late_maximum > LATE else None, duty.interval or None,
            duty.runs, duty.skipped, duty.failures,
            round(duty.late_maximum * 1000, 1), round(duty.cost_maximum * 1000, 1), round(duty.cost_total, 3),
        )
        for duty in one.duties
    ]  # fmt: skip
    return Table("duties of the clock", columns, rows, 3)


def _census(one: Snapshot) -> Table:
    more = sum(one.counts.values()) - sum(thing.count for thing in one.census)
    title = "census" + (f", {more} more" if more > 0 else "")
    rows: list[tuple[object, ...]] = [
        (thing.kind, thing.name, thing.owner, thing.place, thing.count, f"{thing.age:.0f} s") for thing in one.census
    ]
    return Table(title, ("kind", "name", "owner", "made at", "count", "age"), rows, 4)


def _subscribers(one: Snapshot) -> list[Table]:
    if not one.subscribers:
        return []
    columns = ("event", "subscriber", "owner", "note", "waiting", "limit", "lost", "behind s")
    rows: list[tuple[object, ...]] = [
        (
            sub.event, sub.name, sub.owner, "slow" if sub.slow else None,
            sub.waiting, sub.limit, sub.dropped, round(sub.behind, 1),
        )
        for sub in one.subscribers
    ]  # fmt: skip
    return [Table("subscribers", columns, rows, 4)]


def _histories(one: Snapshot) -> Table:
    def kib(size: int | None) -> float | None:
        return None if size is None else round(size / 1024, 1)

    rows: list[tuple[object, ...]] = [
        (history.name, kib(history.size_bytes), kib(history.limit_bytes)) for history in one.memory.histories
    ]
    return Table("histories and caches", ("what", "KiB", "at most KiB"), rows)
