"""Pictures are well-formed, hold what they are given, and run nothing."""

from __future__ import annotations

import doctest
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from headrace.verify import plot
from headrace.verify.plot import Bar, Line, draw_bars, draw_lines, nice_ticks, thin_out

POINTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), max_size=40)


def test_examples_are_true() -> None:
    assert doctest.testmod(plot).failed == 0


@given(POINTS, POINTS, st.text(st.characters(codec="ascii", min_codepoint=32), max_size=20))
def test_a_chart_of_lines_is_well_formed(
    first: list[tuple[float, float]], second: list[tuple[float, float]], title: str
) -> None:
    drawn = draw_lines(title, [Line("a<b", first), Line("c", second)], across="s", up="ms", mark=3.0)

    root = ET.fromstring(drawn)
    assert "a<b" in "".join(root.itertext())
    assert "<script" not in drawn


def test_a_chart_of_bars_shows_each_bar_with_its_spread() -> None:
    drawn = draw_bars("t", [Bar("x", 2.0, 1.0, 3.0), Bar("y", 0.0, 0.0, 0.0)], up="jobs/s")

    root = ET.fromstring(drawn)
    assert len(root.findall("{*}rect")) == 2


@given(st.floats(1e-9, 1e12))
def test_ticks_reach_the_highest_value_and_are_few(most: float) -> None:
    ticks = nice_ticks(most)

    assert ticks[0] == 0.0
    assert ticks[-1] >= most * 0.999
    assert 2 <= len(ticks) <= 7


@given(st.lists(st.tuples(st.integers(), st.integers()), min_size=1, max_size=200), st.integers(1, 50))
def test_a_thinned_line_keeps_its_peak(points: list[tuple[float, float]], most: int) -> None:
    kept = thin_out(points, most)

    assert len(kept) <= most
    assert max(y for _, y in kept) == max(y for _, y in points)
