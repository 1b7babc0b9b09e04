"""Histograms in a fixed number of bytes: percentiles within 7 %, exact counts and maxima, and figures that fade."""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.histogram import (
    BUCKETS,
    HISTOGRAM_BYTES,
    Histogram,
    Quantiles,
    RecentHistogram,
    RecentMaximum,
    bucket_middle,
)

durations = st.floats(min_value=8e-6, max_value=4_000.0)


@given(st.lists(durations, min_size=1, max_size=200))
def test_percentiles_are_within_seven_percent_of_the_exact_ones(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)

    found = histogram.quantiles()

    ordered = sorted(values)
    for share, percentile in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        exact = ordered[max(0, math.ceil(len(ordered) * share) - 1)]
        # Microseconds are whole.
        assert abs(percentile - exact) <= exact * 0.07 + 1e-6
    assert (found.count, found.maximum) == (len(values), max(values))
    assert math.isclose(found.mean, sum(values) / len(values), rel_tol=1e-9)


@given(st.lists(st.floats(min_value=-1.0, max_value=1e9), max_size=50), st.lists(durations, max_size=50))
def test_what_was_counted_apart_adds_up(first: list[float], second: list[float]) -> None:
    one, two, both = Histogram(), Histogram(), Histogram()
    for value in first:
        one.record(value)
        both.record(value)
    for value in second:
        two.record(value)
        both.record(value)

    one.add(two)

    assert (one.zeros, one.longest, one.counts) == (both.zeros, both.longest, both.counts)
    assert one.quantiles().count == len(first) + len(second)


@given(
    st.lists(st.one_of(st.floats(min_value=0.0, max_value=9e9), durations), max_size=80),
    st.lists(st.integers(3, 32), min_size=1, unique=True).map(sorted),
)
def test_what_is_below_an_edge_is_counted_exactly(values: list[float], powers: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)

    counts = histogram.below(powers)

    microseconds = [int(value * 1_000_000.0) for value in values]
    for at, power in enumerate(powers):
        assert sum(counts[: at + 1]) == sum(1 for each in microseconds if each < 2**power)
    assert sum(counts) == len(values)


@given(st.lists(st.tuples(durations, st.floats(min_value=0.0, max_value=200.0)), max_size=40))
def test_nothing_is_forgotten_whatever_the_windows(recorded: list[tuple[float, float]]) -> None:
    recent, everything, now = RecentHistogram(window=60.0), Histogram(), 1.0
    for value, pause in recorded:
        now += pause
        recent.turn(now)
        recent.current.record(value)
        everything.record(value)

    found = recent.ever()

    assert (found.counts, found.zeros, found.longest) == (everything.counts, everything.zeros, everything.longest)
    assert math.isclose(found.total, everything.total)


@pytest.mark.parametrize(("seconds", "zeros"), [(0.0, 1), (-5.0, 1), (9e-7, 1), (1e-6, 0), (1e12, 0)])
def test_nothing_and_far_too_much_are_counted_too(seconds: float, zeros: int) -> None:
    histogram = Histogram()

    histogram.record(seconds)

    assert histogram.zeros == zeros
    assert histogram.quantiles().count == 1


def test_an_empty_histogram_answers_zeros() -> None:
    assert Histogram().quantiles() == Quantiles()


def test_a_histogram_stays_as_small_as_it_says() -> None:
    histogram = Histogram()

    for number in range(20_000):
        histogram.record(number * 1e-5)

    assert len(histogram.counts) == BUCKETS
    assert len(bytes(histogram.counts)) == HISTOGRAM_BYTES
    # Python may keep an eighth more than it was asked for.
    assert sys.getsizeof(histogram.counts) < HISTOGRAM_BYTES * 1.25


def test_buckets_follow_each_other_without_a_gap() -> None:
    middles = [bucket_middle(index) for index in range(BUCKETS)]
    steps = [after / before for before, after in pairwise(middles[8:])]

    # Below that, each microsecond has a bucket of its own; indexes from there on are those of `record`.
    assert all(1.0 < step < 1.2 for step in steps[8:])
    assert middles == sorted(middles)


def test_figures_are_those_of_the_last_one_to_two_windows() -> None:
    recent = RecentHistogram(window=60.0)
    recent.turn(100.0)
    recent.current.record(1.0)

    assert recent.quantiles(150.0).count == 1
    recent.current.record(2.0)
    assert recent.quantiles(165.0).count == 2
    recent.current.record(3.0)

    assert recent.quantiles(219.0).count == 3
    assert (recent.quantiles(226.0).count, recent.quantiles(226.0).maximum) == (1, 3.0)
    assert recent.quantiles(400.0).count == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 300)), max_size=60), st.integers(0, 400))
def test_the_maximum_is_that_of_the_last_minute(moves: list[tuple[int, int]], later: int) -> None:
    recent, now, noted = RecentMaximum(), 1_000.0, []
    for wait, value in moves:
        now += wait
        recent.record(value, now)
        noted.append((now, value))

    answer = recent.highest(now + later)

    assert answer == max((value for at, value in noted if at > now + later - 60), default=0)
