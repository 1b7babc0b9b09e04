"""The table before and after: the incident's figures beside those measured, and whether each was seen and is met.

Pure: it is made from a report. A symptom that the incident's design did not show in this run is said not to have been
shown; a figure of Headrace that misses its target is said to be missed.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.bench.incident.cell import Cell, merge_cells, merge_verdicts
from headrace.bench.timing import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.bench.incident.run import IncidentReport, SideReport

#: What the incident's design must show to count as having the symptom.
WAITING_SHOWN = 100
LATENCY_SHOWN = 1_000.0
TIMERS_SHOWN = 50
THROUGHPUT_SHOWN = 500.0
MEMORY_SHOWN = 85.0
REQUESTS_SHOWN = 40
IDLE_COMMANDS_SHOWN = 100.0
HISTORY_SHOWN_MB = 100.0
LISTENERS_SHOWN = 100
FREED_LITTLE_MB = 10.0
#: What Headrace must keep.
#: In 99 of 100 looks: who waits for a moment while a connection is being opened is no queue.
WAITING_MOST = 5
LATENCY_MOST = 100.0
TIMERS_MOST = 3
THROUGHPUT_LEAST = 500.0
MEMORY_MOST = 75.0
REQUESTS_LEAST = 120
CPU_LESS = 60.0
IDLE_COMMANDS_MOST = 1.0
HISTORY_MOST_MB = 10.0
LISTENERS_MOST = 10


class Row(msgspec.Struct, frozen=True):
    """One figure.

    Attributes:
        name: What was measured.
        incident: What was reported of the incident, before and after.
        before: Measured on the incident's design.
        after: Measured on Headrace.
        shown: Whether the incident's design showed the symptom in this run; None where nothing was reported of it.
        met: Whether Headrace meets the figure; None where there is none.
        shown_in: In how many of several runs, if not in all or none.
        met_in: The same of `met`.
    """

    name: str
    incident: str
    before: Cell
    after: Cell
    shown: bool | None
    met: bool | None
    shown_in: str = ""
    met_in: str = ""


class _Side:
    """Figures of one side, from what it told."""

    def __init__(self, report: SideReport, workload: dict[str, Any]) -> None:
        self.report = report
        self._workload = workload

    def most(self, name: str, *phases: str) -> float:
        """Return the highest value in the looks of some phases."""
        return max((look[name] for phase in phases for look in self.report.phases[phase]["series"]), default=0.0)

    @property
    def waiting(self) -> tuple[float, float, float]:
        """Callers without a connection: median of the rush, 99th percentile and most of surge and rush."""
        rush: list[dict[str, float]] = self.report.phases["rush"]["series"]
        looks = [look["waiting"] for look in [*self.report.phases["surge"]["series"], *rush]]
        middle = statistics.median([look["waiting"] for look in rush] or [0.0])
        return middle, quantile(looks, 0.99), max(looks, default=0.0)

    @property
    def probes(self) -> tuple[float, float]:
        """Median and longest time of the health check in the rush, ms."""
        times: list[float] = self.report.phases["rush"]["probes"] or [0.0]
        return statistics.median(times) * 1000, max(times) * 1000

    @property
    def timers(self) -> int:
        counts: list[int] = self.report.phases["idle"]["timers"]
        return round(statistics.median(counts))

    @property
    def idle_commands(self) -> float:
        idle = self.report.phases["idle"]
        return max(0.0, float(idle["commands"] / idle["seconds"]))

    def cpu(self, phase: str) -> float:
        """Processor time of the process and the server in a phase, percent of a core."""
        found = self.report.phases[phase]
        return float(100 * (found["processor_seconds"] + found["server_seconds"]) / found["seconds"])

    @property
    def throughput(self) -> float:
        """Jobs a minute in the rush."""
        rush = self.report.phases["rush"]
        return float(60 * rush["completed"] / rush["seconds"])

    @property
    def memory(self) -> float:
        """Most memory, percent of the limit."""
        return 100 * self.most("memory", "surge", "rush") / float(self._workload["memory_limit_mb"])

    @property
    def answer_ms(self) -> float:
        """Median time of a request in the rush, ms."""
        times: list[float] = self.report.phases["rush"]["requests"] or [0.0]
        return statistics.median(times) * 1000


def make_rows(report: IncidentReport) -> list[Row]:
    """Return the rows of the table, those of the incident's headline first.

    With several runs a figure is their median with its extremes, and a verdict holds when it does in each of them.

    Args:
        report: What both sides told, in each run.
    """
    runs = [_rows_of(run.before, run.after, report.workload) for run in report.runs]
    return [_merge(rows) for rows in zip(*runs, strict=True)]


def _rows_of(before: SideReport, after: SideReport, workload: dict[str, Any]) -> list[Row]:
    sides = _Side(before, workload), _Side(after, workload)
    return [*_headline(*sides), *_beside(*sides)]


def _merge(rows: Sequence[Row]) -> Row:
    shown, shown_in = merge_verdicts([row.shown for row in rows])
    met, met_in = merge_verdicts([row.met for row in rows])
    before, after = merge_cells([row.before for row in rows]), merge_cells([row.after for row in rows])
    return Row(rows[0].name, rows[0].incident, before, after, shown, met, shown_in, met_in)


def _headline(before: _Side, after: _Side) -> Iterator[Row]:
    waits = before.waiting, after.waiting
    yield Row(
        "waiting for a connection", "282 -> 0",
        Cell(waits[0][0], most=waits[0][2]), Cell(waits[1][0], most=waits[1][2]),
        waits[0][1] >= WAITING_SHOWN, waits[1][1] <= WAITING_MOST,
    )  # fmt: skip
    probes = before.probes, after.probes
    yield Row(
        "Redis latency, as the health check sees it, ms", "1,540-2,716 -> under 100",
        Cell(probes[0][0], 1, probes[0][1]), Cell(probes[1][0], 1, probes[1][1]),
        probes[0][1] >= LATENCY_SHOWN, probes[1][1] < LATENCY_MOST,
    )  # fmt: skip
    yield Row(
        "timers in the process", "50+ -> 3 or fewer", Cell(before.timers), Cell(after.timers),
        before.timers >= TIMERS_SHOWN, after.timers <= TIMERS_MOST,
    )  # fmt: skip
    cpu, less = _compare_cpu(before, after, "steady")
    yield Row("CPU at 100 jobs a minute, % of a core", "-60 to -70 %", cpu[0], cpu[1], None, less >= CPU_LESS)
    yield Row(
        "jobs a minute", "100 -> 500+", Cell(before.throughput), Cell(after.throughput),
        before.throughput < THROUGHPUT_SHOWN, after.throughput >= THROUGHPUT_LEAST,
    )  # fmt: skip
    yield Row(
        "memory, % of its limit", "89-92 -> under 75", Cell(before.memory), Cell(after.memory),
        before.memory >= MEMORY_SHOWN, after.memory < MEMORY_MOST,
    )  # fmt: skip
    carried = before.most("serving", "surge", "rush"), after.most("serving", "surge", "rush")
    yield Row(
        "requests worked on at once", "20-30 -> 120+", Cell(carried[0]), Cell(carried[1]),
        carried[0] <= REQUESTS_SHOWN, carried[1] >= REQUESTS_LEAST,
    )  # fmt: skip


def _beside(before: _Side, after: _Side) -> Iterator[Row]:
    """Yield what was reported of the incident beside its headline."""
    used = [(side.most("in_use", "surge", "rush"), side.most("maximum", "rush")) for side in (before, after)]
    shown = [Cell(most, note=f" of {maximum:.0f}") for most, maximum in used]
    yield Row(
        "connections in use, most", "32 of 20", shown[0], shown[1],
        used[0][0] > used[0][1], used[1][0] <= used[1][1],
    )  # fmt: skip
    yield Row(
        "commands a second when idle", "hundreds of empty polls",
        Cell(before.idle_commands, 1), Cell(after.idle_commands, 1),
        before.idle_commands >= IDLE_COMMANDS_SHOWN, after.idle_commands <= IDLE_COMMANDS_MOST,
    )  # fmt: skip
    for name, phase in (("CPU at 600 jobs a minute, % of a core", "busy"), ("CPU when idle, % of a core", "idle")):
        cpu, _ = _compare_cpu(before, after, phase)
        yield Row(name, "", cpu[0], cpu[1], None, None)
    history = before.report.history_mb, after.report.history_mb
    yield Row(
        "monitoring of two days, MB", "about 150", Cell(history[0]), Cell(history[1]),
        history[0] >= HISTORY_SHOWN_MB, history[1] <= HISTORY_MOST_MB,
    )  # fmt: skip
    yield Row(
        "event listeners at the end", "never removed",
        Cell(before.report.closing["listeners"]), Cell(after.report.closing["listeners"]),
        before.report.closing["listeners"] > LISTENERS_SHOWN, after.report.closing["listeners"] <= LISTENERS_MOST,
    )  # fmt: skip
    freed = before.report.closing["optimisation_freed"] / 1024 / 1024
    longest = before.report.closing["optimisation_seconds"] * 1000
    yield Row(
        "forced optimisations", "every 30 s, freed little",
        Cell(before.report.closing["optimisations"], note=f", freed {freed:.0f} MB, longest {longest:.0f} ms"),
        Cell(after.report.closing["optimisations"]),
        bool(before.report.closing["optimisations"]) and freed < FREED_LITTLE_MB,
        after.report.closing["optimisations"] == 0,
    )  # fmt: skip
    yield Row("time of a request, median, ms", "", Cell(before.answer_ms), Cell(after.answer_ms), None, None)


def _compare_cpu(before: _Side, after: _Side, phase: str) -> tuple[tuple[Cell, Cell], float]:
    """Return the processor time of both in a phase, and by how many percent it is less."""
    used = before.cpu(phase), after.cpu(phase)
    less = 100 * (1 - used[1] / used[0]) if used[0] else 0.0
    return (Cell(used[0], 1), Cell(used[1], 1, note=f" ({-less:+.0f} %)")), less


COLUMNS = ("figure", "incident, reported", "its design, measured", "Headrace, measured", "symptom", "target")


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of one row.

    Example:
        >>> cells(Row("timers", "50+ -> 3", Cell(54), Cell(2), shown=True, met=True))
        ('timers', '50+ -> 3', '54', '2', 'shown', 'met')
        >>> cells(Row("jobs a minute", "100 -> 500+", Cell(900), Cell(400), shown=False, met=False))[4:]
        ('not shown here', 'MISSED')
        >>> cells(Row("timers", "", Cell(54), Cell(2), shown=False, met=False, shown_in="1 of 3", met_in="2 of 3"))[4:]
        ('shown in 1 of 3', 'MISSED, met in 2 of 3')
    """
    shown = (
        f"shown in {row.shown_in}" if row.shown_in else {None: "", True: "shown", False: "not shown here"}[row.shown]
    )
    met = f"MISSED, met in {row.met_in}" if row.met_in else {None: "", True: "met", False: "MISSED"}[row.met]
    return row.name, row.incident, str(row.before), str(row.after), shown, met


def write_markdown(rows: Sequence[Row], facts: dict[str, str], runs: int = 1, options: str = "") -> str:
    """Return the table for a document, and below it what it was taken with.

    Args:
        rows: The rows.
        facts: What they depend on.
        runs: How many there were.
        options: Those of the command that changed the load, each with a space before it.
    """
    option = f"{options} --repeats {runs}`, medians with their extremes," if runs > 1 else f"{options}`"
    lines = [COLUMNS, ["---", "---", "---:", "---:", "---", "---"], *map(cells, rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    taken = f"{facts['machine']}, Python {facts['python']}, {facts['server']}; load {facts['load']}"
    return f"{table}\n\nPrinted by `headrace bench --compare incident{option} on {taken}."
