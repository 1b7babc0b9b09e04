"""The report for people: one page of HTML that needs nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from headrace.verify.claims import WAITING_GOOD
from headrace.verify.plot import Line, draw_lines, embed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headrace.verify.report import Report

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #8884; }
.grade { font-weight: 600; white-space: nowrap; }
.pass, .full { color: #007a4d; } .partial { color: #9a6200; } .fail, .failed { color: #c0261c; }
.skipped { color: #777; }
svg { width: 100%; height: auto; margin: .5rem 0; } svg text { fill: currentColor; }
pre { overflow-x: auto; background: #8881; padding: .8rem; font-size: 12px; } small { color: #777; }
"""


def write_page(report: Report) -> str:
    """Write the page; whatever the report holds is escaped."""
    verdict = str(report.verdict)
    about = f"{report.course}, {report.seconds:g} s, begun {report.began}, on {report.server}"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>headrace verify: {escape(verdict)}</title><style>{STYLE}</style></head><body>",
        f"<h1>headrace verify: <span class='{escape(verdict)}'>{escape(verdict)}</span></h1>",
        f"<p>{escape(about)}</p>",
        _outcomes(report),
        "<h2>Under load</h2>",
        *map(embed, _plots(report)),
        "<h2>Faults</h2>",
        _table(
            ("fault", "struck", "jobs held", "work went on after"),
            [
                (
                    strike.fault,
                    strike.struck or strike.skipped,
                    strike.held,
                    "-" if strike.recovered is None else f"{strike.recovered:.2f} s",
                )
                for strike in report.drill.strikes
            ],
        ),
        "<h2>Settings</h2>",
        _table(("setting", "value", "source"), [(row["name"], row["value"], row["source"]) for row in report.settings]),
        "<h2>Machine and versions</h2>",
        _table(("what", "value"), [*report.machine.items(), *report.versions.items()]),
        "<h2>Errors</h2>",
        _lines(report.errors + [f"{line.level} {line.message} {line.more}" for line in report.load.log]),
        "<h2>Start of the worker</h2>",
        _lines(report.start_log),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _outcomes(report: Report) -> str:
    rows = []
    for one in report.outcomes:
        grade = escape(str(one.grade))
        remedy = f"<br><b>{escape(one.remedy)}</b>" if one.remedy.strip() else ""
        rows.append(
            f"<tr><td>{escape(one.name)}</td><td class='grade {grade}'>{grade}</td>"
            f"<td>{escape(one.measured)}{remedy}<br><small>{escape(one.evidence)}</small></td>"
            f"<td>{escape(one.threshold)}<br><small>{escape(one.source)}</small></td></tr>"
        )
    head = "<tr><th>check</th><th>grade</th><th>measured</th><th>threshold</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _plots(report: Report) -> Iterable[str]:
    load = report.load
    samples = load.under.samples if load.under is not None else []
    if load.series:
        memory = Line("resident", [(at, size / 2**20) for at, size in load.series])
        yield draw_lines("Memory of the worker", [memory], across="s", up="MB")
    if samples:
        lines = [
            Line("active", [(one.at, float(one.active)) for one in samples]),
            Line("idle", [(one.at, float(one.idle)) for one in samples]),
            Line("waiting", [(one.at, float(one.waiting)) for one in samples]),
        ]
        title = "Pool while all slots call the server"
        yield draw_lines(title, lines, across="s", up="", mark=float(WAITING_GOOD))
    if load.rates:
        rates = Line("by part of the load", [(float(number), rate) for number, rate in enumerate(load.rates)])
        yield draw_lines("Jobs without content", [rates], across="part", up="jobs/s")


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _lines(lines: Sequence[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else "<p>None.</p>"
