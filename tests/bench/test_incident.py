"""The incident's design has its symptoms, Headrace does not, and the table says what was seen and what was not."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from headrace.bench.incident import cell, table
from headrace.bench.incident.charts import draw_charts
from headrace.bench.incident.run import IncidentReport, Run, SideReport, compare_incident
from headrace.bench.incident.table import cells, make_rows, write_markdown
from headrace.bench.incident.workload import Workload
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from headrace.server import PrivateServer

#: A few seconds of the load, with enough users to starve 37 connections twice over, also where they are slow to come.
SHORT = Workload(
    uptime=600.0, application_mb=1, idle=1.0, steady=0.5, surge_users=40, surge_within=0.2, rush=3.0, rush_users=320
)


@pytest.fixture
def pool_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the incident's pool as its service does."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "incident"))
    yield importlib.import_module("connections").ServicePool
    sys.modules.pop("connections", None)


async def test_the_incidents_pool_opens_more_than_its_maximum_when_many_ask_at_once(
    pool_class: Any, server: PrivateServer
) -> None:
    pool = pool_class(server.url, maximum=20, minimum=5)
    await pool.start()

    lent = await asyncio.gather(*(pool.acquire() for _ in range(30)))

    opened = pool.total
    for connection in lent:
        pool.release(connection)
    await pool.close()
    assert opened == 30


async def test_the_incidents_pool_keeps_its_maximum_when_one_asks_after_the_other(
    pool_class: Any, server: PrivateServer
) -> None:
    pool = pool_class(server.url, maximum=3, minimum=0, timeout=0.05)
    lent = [await pool.acquire() for _ in range(3)]

    with pytest.raises(TimeoutError):
        await pool.acquire()

    for connection in lent:
        pool.release(connection)
    await pool.close()
    assert pool.total == 3


async def test_the_incidents_pool_serves_in_order_of_arrival(pool_class: Any, server: PrivateServer) -> None:
    pool = pool_class(server.url, maximum=1, minimum=1)
    await pool.start()
    order: list[int] = []

    async def use(number: int) -> None:
        async with pool.connection():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number) for number in range(20)))

    await pool.close()
    assert order == list(range(20))


def side(name: str, **changed: Any) -> SideReport:
    """Make what a healthy side tells, with some figures changed."""
    looks = [
        {"at": float(index), "waiting": 0.0, "in_use": 5.0, "maximum": 100.0, "serving": 150.0, "memory": 60.0}
        for index in range(3)
    ]
    phase: dict[str, Any] = {
        "seconds": 10.0,
        "processor_seconds": 1.0,
        "server_seconds": 0.1,
        "commands": 1,
        "completed": 1_000,
    }
    phase |= {"timers": [2, 2], "probes": [0.001, 0.002], "requests": [0.3], "refused": 0, "series": looks}
    phase |= {key: value for key, value in changed.items() if key in phase}
    for look in looks:
        look.update({key: value for key, value in changed.items() if key in look})
    closing = {"optimisations": 0, "optimisation_seconds": 0.0, "optimisation_freed": 0, "listeners": 0}
    phases = {name: dict(phase) for name in ("idle", "steady", "busy", "surge", "rush")}
    return SideReport(name, 30.0, changed.get("history_mb", 0.0), phases, closing)


def report(before: SideReport, after: SideReport) -> IncidentReport:
    facts = {"machine": "m", "python": "3", "server": "s", "load": "0"}
    return IncidentReport("headrace-bench-incident-2", facts, Workload().plain(), [Run(before, after)])


def test_examples_are_true() -> None:
    assert [doctest.testmod(module).failed for module in (cell, table)] == [0, 0]


def test_a_symptom_that_was_not_seen_is_said_not_to_be_shown_and_is_no_failure() -> None:
    rows = make_rows(report(side("incident"), side("headrace")))

    waiting = rows[0]
    assert (waiting.shown, waiting.met) == (False, True)
    assert cells(waiting)[4:] == ("not shown here", "met")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"waiting": 40.0}, "waiting for a connection"),
        ({"probes": [0.15]}, "Redis latency, as the health check sees it, ms"),
        ({"timers": [4]}, "timers in the process"),
        ({"processor_seconds": 0.9}, "CPU at 100 jobs a minute, % of a core"),
        ({"completed": 10}, "jobs a minute"),
        ({"memory": 250.0}, "memory, % of its limit"),
        ({"serving": 30.0}, "requests worked on at once"),
        ({"in_use": 101.0}, "connections in use, most"),
        ({"commands": 100}, "commands a second when idle"),
        ({"history_mb": 50.0}, "monitoring of two days, MB"),
    ],
)
def test_a_figure_that_headrace_misses_is_said_to_be_missed(changed: dict[str, Any], name: str) -> None:
    good = {"processor_seconds": 0.1, "server_seconds": 0.0}

    rows = make_rows(report(side("incident"), side("headrace", **{**good, **changed})))

    assert [row.name for row in rows if row.met is False] == [name]


def test_the_table_of_a_document_holds_every_row_and_what_it_was_taken_with() -> None:
    rows = make_rows(report(side("incident"), side("headrace")))

    text = write_markdown(rows, {"machine": "m", "python": "3", "server": "s", "load": "1"})

    assert all(f"| {row.name} |" in text for row in rows)
    assert "on m, Python 3, s; load 1" in text


def test_several_runs_are_told_by_median_and_extremes_and_one_miss_is_a_miss() -> None:
    good = {"processor_seconds": 0.1, "server_seconds": 0.0}
    found = report(side("incident", timers=[54]), side("headrace", **good))
    found.runs += [
        Run(side("incident", timers=[60]), side("headrace", **good)),
        Run(side("incident", timers=[40]), side("headrace", timers=[4], **good)),
    ]

    rows = {row.name: cells(row) for row in make_rows(found)}

    assert rows["timers in the process"][2:] == ("54 (40-60)", "2 (2-4)", "shown in 2 of 3", "MISSED, met in 2 of 3")
    assert [row.name for row in make_rows(found) if row.met is False] == ["timers in the process"]
    text = write_markdown(make_rows(found), found.facts, 3, " --scale 0.2")
    assert "Printed by `headrace bench --compare incident --scale 0.2 --repeats 3`, medians with their" in text


def test_the_front_page_shows_every_figure_of_the_table() -> None:
    part = (ROOT / "README.md").read_text().partition("<!-- incident -->")[2].partition("<!-- /incident -->")[0]

    shown = [line.split("|")[1].strip() for line in part.splitlines() if line.startswith("| ")]

    names = [row.name for row in make_rows(report(side("incident"), side("headrace")))]
    assert shown == ["figure", "---", *names], "run `headrace bench --compare incident --write README.md`"


def test_what_both_sides_load_is_no_part_of_the_engine() -> None:
    code = "import headrace.bench.incident.side, sys; print(*(m for m in sys.modules if m.startswith('headrace')))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert set(done.stdout.split()) == {
        "headrace", "headrace.bench", "headrace.bench.incident", "headrace.bench.incident.side",
        "headrace.bench.incident.workload",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_one_run_shows_the_symptoms_and_headrace_without_them() -> None:
    told: list[str] = []

    found = await compare_incident(SHORT, told.append)

    rows = {row.name: row for row in make_rows(found)}
    # Not the jobs a minute: in so short a rush those count that had begun before it.
    seen = ("waiting for a connection", "timers in the process", "connections in use, most")
    assert told[0] == "incident: idle"
    assert told[-1] == "headrace: rush"
    assert [rows[name].shown for name in seen] == [True] * len(seen)
    assert [rows[name].met for name in seen] == [True] * len(seen)
    assert rows["commands a second when idle"].shown
    (run,) = found.runs
    assert run.before.closing["listeners"] > run.after.closing["listeners"]
    for picture in draw_charts(found).values():
        ET.fromstring(picture)
