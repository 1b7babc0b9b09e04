"""Two runs are held against each other, and the gate lets through what is within it and nothing else."""

from __future__ import annotations

import doctest
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from headrace.bench import report, shown, timing
from headrace.bench.report import (
    SCHEMA,
    BenchReport,
    Figure,
    Inputs,
    check_gate,
    compare_figures,
    parse_gate,
    read_report,
)
from headrace.bench.shown import change_rows, draw_figures, figure_rows
from headrace.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

DRAIN = Figure("no-op drain", "jobs/s", "more", (100.0, 110.0, 90.0))
DELAY = Figure("latency p50", "ms", "less", (1.0, 1.2, 0.8))


def changed(figure: Figure, factor: float) -> Figure:
    return msgspec.structs.replace(figure, values=tuple(value * factor for value in figure.values))


@pytest.mark.parametrize("module", [report, shown, timing])
def test_examples_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("figure", "factor", "beyond"),
    [
        (DRAIN, 0.89, True),
        (DRAIN, 0.91, False),
        (DRAIN, 2.0, False),
        (DELAY, 1.11, True),
        (DELAY, 1.09, False),
        (DELAY, 0.5, False),
    ],
)
def test_the_gate_holds_back_what_is_worse_by_more_than_its_percent(
    figure: Figure, factor: float, *, beyond: bool
) -> None:
    changes = compare_figures([figure], [changed(figure, factor)])

    assert bool(check_gate(changes, 10.0)) is beyond


def test_a_figure_that_was_not_taken_again_is_beyond_every_gate() -> None:
    changes = compare_figures([DRAIN, DELAY], [DRAIN])

    assert [change.name for change in check_gate(changes, 1000.0)] == ["latency p50"]


def test_a_new_figure_passes_every_gate() -> None:
    changes = compare_figures([], [DRAIN])

    assert check_gate(changes, 0.0) == []
    assert change_rows(changes, 0.0)[0][-1] == "new"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (0.0, 0.5, "noise"),
        (0.5, 1.5, "noise"),
        (0.0, 0.0, "noise"),
        (0.0, 50.0, "BEYOND THE GATE"),
        (0.5, 50.0, "BEYOND THE GATE"),
        (50.0, 0.0, "better"),
    ],
)
def test_an_idle_worker_that_begins_to_poll_is_beyond_the_gate_and_one_command_more_is_not(
    before: float, after: float, verdict: str
) -> None:
    idle = Figure("idle commands", "in 5 s", "less", (before,), grain=0.5)

    changes = compare_figures([idle], [msgspec.structs.replace(idle, values=(after,))])

    assert change_rows(changes, 10.0)[0][-1] == verdict
    assert bool(check_gate(changes, 10.0)) is (verdict == "BEYOND THE GATE")


@pytest.mark.parametrize(
    ("scatter", "slower", "least", "most"), [(0.05, 0.0, 0.0, 0.01), (0.10, 0.0, 0.05, 0.13), (0.05, 0.30, 0.99, 1.0)]
)
def test_how_often_a_gate_of_10_percent_fails_is_what_the_page_says(
    scatter: float, slower: float, least: float, most: float
) -> None:
    draw = random.Random(1)

    def take(middle: float) -> Figure:
        return msgspec.structs.replace(DRAIN, values=tuple(draw.gauss(middle, scatter * middle) for _ in range(5)))

    runs = [compare_figures([take(100.0)], [take(100.0 * (1 - slower))]) for _ in range(2_000)]

    assert least <= sum(bool(check_gate(changes, 10.0)) for changes in runs) / len(runs) <= most


def test_overlapping_extremes_are_called_noise() -> None:
    changes = compare_figures([DRAIN], [changed(DRAIN, 0.95)])

    assert changes[0].noise
    assert change_rows(changes, 10.0)[0][-1] == "noise"


@pytest.mark.parametrize("text", ["ten", "-1%", "", "1e3", "2000%"])
def test_a_malformed_gate_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"expected a percent from 0 to 1000"):
        parse_gate(text)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = BenchReport(SCHEMA, {"machine": "m"}, Inputs(1, 2, 0.1, {"no-op": 20}, {"no-op": "d"}), (DRAIN,))
    path = tmp_path / "report.json"
    path.write_bytes(msgspec.json.encode(written))

    assert read_report(path) == written


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        (b"{}", "is no report"),
        (b"not json", "is no report"),
        (
            b'{"schema":"other","facts":{},"inputs":{"seed":1,"repeats":1,"scale":1,"jobs":{},"digests":{}},"figures":[]}',
            "has the schema other",
        ),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(OptionError, match=complaint):
        read_report(path)


def test_rows_and_pictures_show_median_and_extremes() -> None:
    assert figure_rows([DRAIN]) == [("no-op drain", "jobs/s", "100", "90", "110", "20 %")]
    assert set(draw_figures([DRAIN, DELAY])) == {"bench-jobs-s.svg", "bench-ms.svg"}
