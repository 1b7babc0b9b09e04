"""Folding of log lines: nothing is lost from the count, nothing new is hidden, and the table is bounded."""

from __future__ import annotations

import gc
import logging
import sys
import weakref

from hypothesis import given
from hypothesis import strategies as st

from headrace.log_fold import MAX_PHRASES, VARIANTS, Fold


def line(
    phrase: str, *, fields: str = "", name: str = "headrace.worker", level: int = logging.WARNING
) -> logging.LogRecord:
    record = logging.LogRecord(name, level, __file__, 1, phrase, None, None)
    vars(record)["fields"] = fields
    return record


def fold(interval: float = 10.0) -> Fold:
    return Fold(interval, lambda record: f"{record.getMessage()} {vars(record)['fields']}")


def test_a_line_that_repeats_is_printed_once_and_reported_with_its_count() -> None:
    folding = fold()

    printed = [folding.take(line("lease lost"), at) for at in (0.0, 1.0, 2.0)]

    assert printed == [True, False, False]
    assert folding.due() == 10.0
    assert folding.ended(9.9) == []
    (report,) = folding.ended(10.0)
    assert (report.getMessage(), vars(report)["repeated"]) == ("lease lost", 2)
    assert folding.take(line("lease lost"), 10.0)


def test_a_line_that_came_once_is_not_reported() -> None:
    folding = fold()
    folding.take(line("lease lost"), 0.0)

    assert folding.ended(11.0) == []
    assert folding.due() is None


def test_lines_with_other_fields_are_printed_up_to_a_number() -> None:
    folding = fold()

    printed = [folding.take(line("late", fields=str(number)), 0.0) for number in range(VARIANTS + 5)]

    assert printed == [True] * VARIANTS + [False] * 5
    assert vars(folding.ended(10.0)[0])["repeated"] == 5


def test_lines_of_others_and_lines_for_debugging_are_all_printed() -> None:
    folding = fold()

    assert all(folding.take(line("done", name="shop.jobs"), 0.0) for _ in range(5))
    assert all(folding.take(line("done", name="headracer"), 0.0) for _ in range(5))
    assert all(folding.take(line("done", level=logging.DEBUG), 0.0) for _ in range(5))


def test_an_interval_of_zero_prints_every_line() -> None:
    folding = fold(0.0)

    assert all(folding.take(line("lease lost"), 0.0) for _ in range(5))


def test_a_report_carries_no_traceback() -> None:
    folding = fold()
    for _ in range(2):
        record = line("failed")
        record.exc_info = (ValueError, ValueError("x"), None)
        folding.take(record, 0.0)

    (report,) = folding.ended(10.0)

    assert report.exc_info is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.floats(0, 5)), max_size=200))
def test_every_line_is_printed_or_counted(lines: list[tuple[int, int, float]]) -> None:
    folding = fold()
    now, printed, counted = 0.0, 0, 0

    for phrase, fields, passes in lines:
        now += passes
        counted += sum(vars(report)["repeated"] for report in folding.ended(now))
        printed += folding.take(line(f"phrase {phrase}", fields=str(fields)), now)
    counted += sum(vars(report)["repeated"] for report in folding.ended(float("inf")))

    assert printed + counted == len(lines)


def test_the_table_is_bounded_and_what_leaves_it_is_reported() -> None:
    folding = fold()
    reports = []

    for number in range(2 * MAX_PHRASES):
        for _ in range(2):
            reports += folding.ended(0.0)
            folding.take(line(f"phrase {number}"), 0.0)

    assert len(folding._lines) <= MAX_PHRASES + 1
    assert len(reports) == MAX_PHRASES


def test_a_folded_line_keeps_nothing_alive_of_the_place_where_it_failed() -> None:
    class Held:
        pass

    def fail() -> tuple[logging.LogRecord, weakref.ref[Held]]:
        held = Held()
        record = line("failed")
        try:
            int(f"{held}")
        except ValueError:
            record.exc_info = sys.exc_info()
        return record, weakref.ref(held)

    folding = fold()
    folding.take(line("failed"), 0.0)
    record, held = fail()
    folding.take(record, 1.0)
    del record
    gc.collect()

    assert held() is None
    assert [vars(report)["repeated"] for report in folding.ended(10.0)] == [1]
