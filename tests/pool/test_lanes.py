"""Lanes: shares that add up, kept in proportion when the maximum changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import OptionError
from headrace.pool.lanes import MOST_CONNECTIONS, Lane, app_shares, parse_shares, scale_shares

shares_of = st.dictionaries(st.sampled_from(list(Lane)), st.integers(1, 2_000), min_size=1)


@given(st.integers(4, MOST_CONNECTIONS))
def test_the_shares_of_an_app_add_up_and_every_lane_has_one(maximum: int) -> None:
    shares = app_shares(maximum)

    assert sum(shares.values()) == maximum
    assert list(shares) == list(Lane)
    assert min(shares.values()) >= 1
    assert parse_shares({str(lane): share for lane, share in shares.items()}, maximum) == shares


@given(shares_of, st.integers(4, MOST_CONNECTIONS))
def test_scaled_shares_add_up_and_keep_their_proportions(shares: dict[Lane, int], maximum: int) -> None:
    scaled = scale_shares(shares, maximum)

    assert sum(scaled.values()) == maximum
    assert min(scaled.values()) >= 1
    before = sum(shares.values())
    for lane, share in shares.items():
        # Each lane keeps one at least, which the others pay for.
        assert abs(scaled[lane] - maximum * share / before) <= len(shares)


@given(shares_of)
def test_the_same_maximum_changes_nothing(shares: dict[Lane, int]) -> None:
    assert scale_shares(shares, sum(shares.values())) == shares


@pytest.mark.parametrize(
    ("lanes", "maximum", "text"),
    [
        (None, 0, "max_connections=0: expected a whole number from 1 to 10000"),
        (None, 10_001, "max_connections=10001"),
        (None, True, "max_connections=True"),
        (None, 2.5, r"max_connections=2\.5"),
        ({"user": 3}, 4, "add up to max_connections=4, not to 3"),
        ({"user": 5, "other": 1}, 5, "expected shares of control, blocking, jobs, user"),
        ({"user": 0, "jobs": 4}, 4, "user=0: expected a whole number of at least 1"),
        ({"user": True, "jobs": 3}, 4, "user=True"),
        ({}, 4, "not to 0"),
    ],
)
def test_wrong_shares_are_refused_by_name(lanes: Any, maximum: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        parse_shares(lanes, maximum)


def test_fewer_connections_than_lanes_are_refused() -> None:
    with pytest.raises(OptionError, match="expected at least 2, one for each lane"):
        scale_shares({Lane.JOBS: 1, Lane.USER: 1}, 1)
