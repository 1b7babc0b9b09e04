"""The robust slope: what it finds, what does not bend it, and how often its interval holds the truth."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.memory.growth import Series, fit_slope

POINTS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(-1_000_000, 1_000_000)), min_size=2, max_size=40,
    unique_by=lambda point: point[0],
)  # fmt: skip


@given(POINTS)
def test_the_interval_holds_the_estimate(points: list[tuple[int, int]]) -> None:
    slope = fit_slope(points)

    assert slope.low <= slope.value <= slope.high


@given(POINTS, st.integers(-1_000, 1_000), st.randoms())
def test_neither_order_nor_a_shift_changes_it_and_a_trend_adds_to_it(
    points: list[tuple[int, int]], trend: int, chance: random.Random
) -> None:
    before = fit_slope(points)

    moved = [(when + 77, value + 5 + trend * (when + 77)) for when, value in points]
    chance.shuffle(moved)
    after = fit_slope(moved)

    assert after.value == pytest.approx(before.value + trend, rel=1e-9, abs=1e-6)
    if math.isfinite(before.low):
        assert after.low == pytest.approx(before.low + trend, rel=1e-9, abs=1e-6)


@given(st.integers(12, 40), st.integers(1, 1_000), st.data())
def test_a_few_spikes_do_not_hide_growth(count: int, rate: int, data: st.DataObject) -> None:
    points = [(when, float(rate * when)) for when in range(count)]
    for at in data.draw(st.sets(st.integers(0, count - 1), max_size=count // 12)):
        points[at] = (points[at][0], points[at][1] + data.draw(st.sampled_from([-1e9, 1e9])))

    slope = fit_slope(points)

    assert slope.grows
    assert slope.value == pytest.approx(rate)


def test_the_interval_holds_the_true_slope_about_as_often_as_it_says() -> None:
    chance = random.Random(8)

    held = 0
    for _ in range(400):
        points = [(when, 3.0 * when + chance.gauss(0, 20)) for when in range(20)]
        slope = fit_slope(points)
        held += slope.low <= 3.0 <= slope.high

    assert 0.92 <= held / 400 <= 0.99


def test_steady_memory_is_rarely_taken_for_growth() -> None:
    chance = random.Random(9)

    growing = sum(fit_slope([(when, chance.gauss(0, 20)) for when in range(12)]).grows for _ in range(400))

    assert growing / 400 <= 0.05


def test_too_few_points_say_nothing() -> None:
    slope = fit_slope([(0, 0.0), (1, 1_000.0), (2, 2_000.0)])

    assert not slope.grows
    assert slope.low == -math.inf


def test_a_series_keeps_the_least_value_of_each_group_and_stays_within_its_bytes() -> None:
    series = Series(recent=5, floors=4, group=3)

    for when in range(1_000):
        series.add(when, 100.0 + (when // 3) + (50.0 if when % 3 else 0.0))

    assert series.lasting().points == 4
    assert series.lasting().value == pytest.approx(1 / 3)
    assert series.recent().points == 5
    assert series.size_bytes <= series.limit_bytes
