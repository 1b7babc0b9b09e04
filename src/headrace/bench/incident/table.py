"""The table before and after: the incident's figures beside those measured, and whether each was seen and is met.

Pure: it is made from a report. A symptom that the incident's design did not show in this run is said not to have been
shown; a figure of Headrace that misses its target is said to be missed.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import msgspec

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
    """

    name: str
    incident: str
    before: str
    after: str
    shown: bool | None
    met: bool | None


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

    Args:
        report: What both sides told.
    """
    before, after = _Side(report.before, report.workload), _Side(report.after, report.workload)
    return [*_headline(before, after), *_beside(before, after)]


def _headline(before: _Side, after: _Side) -> Iterator[Row]:
    waits = before.waiting, after.waiting
    yield Row(
        "waiting for a connection", "282 -> 0", _spread(waits[0][0], waits[0][2]), _spread(waits[1][0], waits[1][2]),
        waits[0][1] >= WAITING_SHOWN, waits[1][1] <= WAITING_MOST,
    )  # fmt: skip
    probes = before.probes, after.probes
    yield Row(
        "Redis latency, as the health check sees it, ms", "1,540-2,716 -> under 100",
        _spread(*probes[0], digits=1), _spread(*probes[1], digits=1),
        probes[0][1] >= LATENCY_SHOWN, probes[1][1] < LATENCY_MOST,
    )  # fmt: skip
    yield Row(
        "timers in the process", "50+ -> 3 or fewer", f"{before.timers}", f"{after.timers}",
        before.timers >= TIMERS_SHOWN, after.timers <= TIMERS_MOST,
    )  # fmt: skip
    cpu, less = _compare_cpu(before, after, "steady")
    yield Row("CPU at 100 jobs a minute, % of a core", "-60 to -70 %", cpu[0], cpu[1], None, less >= CPU_LESS)
    yield Row(
        "jobs a minute", "100 -> 500+", f"{before.throughput:,.0f}", f"{after.throughput:,.0f}",
        before.throughput < THROUGHPUT_SHOWN, after.throughput >= THROUGHPUT_LEAST,
    )  # fmt: skip
    yield Row(
        "memory, % of its limit", "89-92 -> under 75", f"{before.memory:.0f}", f"{after.memory:.0f}",
        before.memory >= MEMORY_SHOWN, after.memory < MEMORY_MOST,
    )  # fmt: skip
    carried = before.most("serving", "surge", "rush"), after.most("serving", "surge", "rush")
    yield Row(
        "requests worked on at once", "20-30 -> 120+", f"{carried[0]:.0f}", f"{carried[1]:.0f}",
        carried[0] <= REQUESTS_SHOWN, carried[1] >= REQUESTS_LEAST,
    )  # fmt: skip


def _beside(before: _Side, after: _Side) -> Iterator[Row]:
    """Yield what was reported of the incident beside its headline."""
    used = [(side.most("in_use", "surge", "rush"), side.most("maximum", "rush")) for side in (before, after)]
    shown = [f"{most:.0f} of {maximum:.0f}" for most, maximum in used]
    yield Row(
        "connections in use, most", "32 of 20", shown[0], shown[1],
        used[0][0] > used[0][1], used[1][0] <= used[1][1],
    )  # fmt: skip
    yield Row(
        "commands a second when idle", "hundreds of empty polls",
        f"{before.idle_commands:,.1f}", f"{after.idle_commands:,.1f}",
        before.idle_commands >= IDLE_COMMANDS_SHOWN, after.idle_commands <= IDLE_COMMANDS_MOST,
    )  # fmt: skip
    for name, phase in (("CPU at 600 jobs a minute, % of a core", "busy"), ("CPU when idle, % of a core", "idle")):
        cpu, _ = _compare_cpu(before, after, phase)
        yield Row(name, "", cpu[0], cpu[1], None, None)
    history = before.report.history_mb, after.report.history_mb
    yield Row(
        "monitoring of two days, MB", "about 150", f"{history[0]:.0f}", f"{history[1]:.0f}",
        history[0] >= HISTORY_SHOWN_MB, history[1] <= HISTORY_MOST_MB,
    )  # fmt: skip
    yield Row(
        "event listeners at the end", "never removed",
        f"{before.report.closing['listeners']:,}", f"{after.report.closing['listeners']:,}",
        before.report.closing["listeners"] > LISTENERS_SHOWN, after.report.closing["listeners"] <= LISTENERS_MOST,
    )  # fmt: skip
    freed = before.report.closing["optimisation_freed"] / 1024 / 1024
    yield Row(
        "forced optimisations", "every 30 s, freed little",
        f"{before.report.closing['optimisations']}, freed {freed:.0f} MB, "
        f"longest {before.report.closing['optimisation_seconds'] * 1000:.0f} ms",
        f"{after.report.closing['optimisations']}",
        bool(before.report.closing["optimisations"]) and freed < FREED_LITTLE_MB,
        after.report.closing["optimisations"] == 0,
    )  # fmt: skip
    yield Row("time of a request, median, ms", "", f"{before.answer_ms:,.0f}", f"{after.answer_ms:,.0f}", None, None)


def _compare_cpu(before: _Side, after: _Side, phase: str) -> tuple[tuple[str, str], float]:
    """Return the processor time of both in a phase, as texts, and by how many percent it is less."""
    used = before.cpu(phase), after.cpu(phase)
    less = 100 * (1 - used[1] / used[0]) if used[0] else 0.0
    return (f"{used[0]:.1f}", f"{used[1]:.1f} ({-less:+.0f} %)"), less


def _spread(middle: float, most: float, digits: int = 0) -> str:
    return f"{middle:,.{digits}f} (most {most:,.0f})"


COLUMNS = ("figure", "incident, reported", "its design, measured", "Headrace, measured", "symptom", "target")


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of one row.

    Example:
        >>> cells(Row("timers", "50+ -> 3", "54", "2", shown=True, met=True))
        ('timers', '50+ -> 3', '54', '2', 'shown', 'met')
        >>> cells(Row("jobs a minute", "100 -> 500+", "900", "400", shown=False, met=False))[4:]
        ('not shown here', 'MISSED')
    """
    shown = {None: "", True: "shown", False: "not shown here"}[row.shown]
    met = {None: "", True: "met", False: "MISSED"}[row.met]
    return row.name, row.incident, row.before, row.after, shown, met


def write_markdown(rows: Sequence[Row], facts: dict[str, str]) -> str:
    """Return the table for a document, and below it what it was taken with.

    Args:
        rows: The rows.
        facts: What they depend on.
    """
    lines = [COLUMNS, ["---", "---", "---:", "---:", "---", "---"], *map(cells, rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    taken = f"{facts['machine']}, Python {facts['python']}, {facts['server']}; load {facts['load']}"
    return f"{table}\n\nPrinted by `headrace bench --compare incident` on {taken}."
