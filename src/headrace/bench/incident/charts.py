"""The comparison as pictures: who waits, how long the health check takes, and the memory, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.verify.plot import Line, draw_lines

if TYPE_CHECKING:
    from headrace.bench.incident.run import IncidentReport, SideReport

PHASES: Final = ("surge", "rush")


def draw_charts(report: IncidentReport) -> dict[str, str]:
    """Return pictures of the first run by file name.

    Args:
        report: What both sides told.
    """
    sides = (report.runs[0].before, report.runs[0].after)
    limit = float(report.workload["memory_limit_mb"])
    interval = float(report.workload["probe_interval"])
    probes = [
        Line(side.name, [(index * interval, each * 1000) for index, each in enumerate(side.phases["rush"]["probes"])])
        for side in sides
    ]
    return {
        "incident-waiting.svg": draw_lines(
            "Waiting for a connection", [_line(side, "waiting") for side in sides], across="s", up="callers"
        ),
        "incident-latency.svg": draw_lines("Health check, in the rush", probes, across="s", up="ms", mark=100.0),
        "incident-serving.svg": draw_lines(
            "Requests worked on at once", [_line(side, "serving") for side in sides], across="s", up="requests"
        ),
        "incident-memory.svg": draw_lines(
            "Memory; dashed: the limit", [_line(side, "memory") for side in sides], across="s", up="MB", mark=limit
        ),
    }


def _line(side: SideReport, name: str) -> Line:
    """Return one figure over the phases with looks, in seconds since the first look."""
    looks = [look for phase in PHASES for look in side.phases[phase]["series"]]
    first = looks[0]["at"] if looks else 0.0
    return Line(side.name, [(look["at"] - first, look[name]) for look in looks])
