"""The report for people: one page of HTML that needs nothing from elsewhere."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final

from headrace.verify.claims import WAITING_GOOD
from headrace.verify.outcome import Grade
from headrace.verify.plot import Line, draw_lines, embed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headrace.verify.report import Report

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60666c; --line: #8883; --ground: #fff; --card: #f6f7f8;
  --pass: #007a4d; --partial: #8f5b00; --fail: #c0261c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a6; --ground: #16181b; --card: #1f2226;
  --pass: #4cc38a; --partial: #f0b34a; --fail: #ff8a7a; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 68rem;
  margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
header p, small, .soft { color: var(--soft); } header p { margin: .3rem 0 1.2rem; }
.pass, .full { color: var(--pass); } .partial { color: var(--partial); } .fail, .failed { color: var(--fail); }
.skipped { color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; }
.tiles div { background: var(--card); border-radius: .5rem; padding: .5rem 1rem; min-width: 6.5rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card { background: var(--card); border-left: 4px solid; border-radius: .3rem; padding: .7rem 1rem; margin: .6rem 0; }
.card > * { color: var(--ink); margin: 0; } .card > small { color: var(--soft); }
.card h3 { font-size: 1rem; color: inherit; } .card p { margin: .15rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
.wide { overflow-x: auto; }
@media (max-width: 42rem) { .plots svg { min-width: 34rem; } .plots { overflow-x: auto; }
  .checks tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .checks tr:first-child { display: none; }
  .checks td { display: inline-block; border: 0; padding: 0 .6rem 0 0; min-width: 0; font-weight: 600; }
  .checks td:nth-child(n+3) { display: block; font-weight: 400; }
  .checks td:nth-child(4)::before { content: "Threshold: "; } }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; } td { min-width: 7rem; overflow-wrap: break-word; }
td + td + td { min-width: 13rem; }
td.grade { font-weight: 600; white-space: nowrap; min-width: 0; }
svg { width: 100%; height: auto; } svg text { fill: currentColor; }
details { border-top: 1px solid var(--line); padding: .7rem 0; } summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; background: var(--card); padding: .8rem; font-size: 12px; }
"""


def write_page(report: Report) -> str:
    """Write the page; whatever the report holds is escaped."""
    verdict = escape(str(report.verdict))
    about = f"Course {report.course}, {report.seconds:g} s, begun {report.began}, on {report.server}"
    log = [f"{line.level} {line.message} {line.more}" for line in report.load.log]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>headrace verify: {verdict}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>headrace verify: <span class='{verdict}'>{verdict}</span></h1><p>{escape(about)}</p>",
        f"{_counts(report)}</header>",
        *_to_do(report),
        *_section("Under load", f"<div class='plots'>{''.join(map(embed, _plots(report)))}</div>"),
        *_section("Checks", _outcomes(report)),
        *_section("Faults", _table(("fault", "struck", "jobs held", "work went on after"), _strikes(report))),
        "<h2>Evidence</h2>",
        _fold("Settings", _table(("setting", "value", "source"), _settings(report))),
        _fold("Machine and versions", _table(("what", "value"), [*report.machine.items(), *report.versions.items()])),
        _fold("Errors", _lines(report.errors + log)),
        _fold("Start of the worker", _lines(report.start_log)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _counts(report: Report) -> str:
    tiles = []
    for grade in Grade:
        count = sum(one.grade is grade for one in report.outcomes)
        if count:
            tiles.append(f"<div><b class='{grade}'>{count}</b>{grade}</div>")
    return f"<div class='tiles'>{''.join(tiles)}</div>"


def _to_do(report: Report) -> Iterable[str]:
    """Yield what did not pass, the worst first, each with its remedy."""
    wrong = [one for grade in (Grade.FAIL, Grade.PARTIAL) for one in report.outcomes if one.grade is grade]
    if wrong:
        yield "<h2>What to do</h2>"
    for one in wrong:
        grade = escape(str(one.grade))
        yield (
            f"<div class='card {grade}'><h3>{escape(one.name)}: {grade}</h3><p>{escape(one.measured)} "
            f"<span class='soft'>({escape(one.threshold)})</span></p><p><b>{_prose(one.remedy)}</b></p>"
            f"<small>{escape(one.evidence)}</small></div>"
        )


def _outcomes(report: Report) -> str:
    rows = []
    for one in report.outcomes:
        grade = escape(str(one.grade))
        rows.append(
            f"<tr><td>{escape(one.name)}</td><td class='grade {grade}'>{grade}</td>"
            f"<td>{escape(one.measured)}<br><small>{escape(one.evidence)}</small></td>"
            f"<td>{escape(one.threshold)}<br><small>{escape(one.source)}</small></td></tr>"
        )
    head = "<tr><th>check</th><th>grade</th><th>measured</th><th>threshold</th></tr>"
    return f"<div class='wide'><table class='checks'>{head}{''.join(rows)}</table></div>"


def _strikes(report: Report) -> list[tuple[object, ...]]:
    return [
        (
            strike.fault,
            strike.struck or strike.skipped,
            strike.held,
            "-" if strike.recovered is None else f"{strike.recovered:.2f} s",
        )
        for strike in report.drill.strikes
    ]


def _settings(report: Report) -> list[tuple[object, ...]]:
    """Return the settings, those first that somebody set."""
    rows = [(row["name"], row["value"], row["source"]) for row in report.settings]
    return sorted(rows, key=lambda row: row[2] == "default")


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _section(title: str, body: str) -> tuple[str, str]:
    return f"<h2>{title}</h2>", body


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>"


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
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _lines(lines: Sequence[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else "<p>None.</p>"
