"""Where the time of an answer went, where two clocks stand, and when a status changes: pure, so against models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.health.probe import ENTER, LATEST, LEAVE, Busy, Machine, Offset, grade, split_answer
from headrace.health.verdict import ORDER, Status

HEALTHY, DEGRADED, UNHEALTHY = ORDER
seconds = st.floats(0.0, 100.0)


@given(seconds, seconds, st.none() | st.floats(-100.0, 200.0), st.none() | st.builds(Busy, seconds, seconds))
def test_the_parts_of_an_answer_add_up_and_none_is_negative(
    total: float, blocked: float, ahead: float | None, busy: Busy | None
) -> None:
    split = split_answer(total, blocked, ahead, busy)

    assert min(split.loop, split.server, split.network) >= 0.0
    assert split.loop + split.server + split.network == pytest.approx(total)
    assert split.loop <= blocked


@given(st.floats(0.001, 10.0), st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_what_the_request_waited_longer_than_the_answer_is_the_servers(way: float, waited: float, lag: float) -> None:
    split = split_answer(2 * way + waited + lag, lag, way + waited, None)

    assert split.loop == pytest.approx(lag)
    assert split.server == pytest.approx(waited, abs=1e-6)
    assert split.network == pytest.approx(2 * way, abs=1e-6)


def test_a_server_that_worked_all_the_time_made_the_answer_wait() -> None:
    split = split_answer(0.4, 0.1, 0.2, Busy(worked=9.0, between=10.0))

    assert split.server == pytest.approx(0.3)
    assert split.network == 0.0


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(0.01, 30.0)), min_size=1, max_size=20),
)
def test_the_true_offset_is_never_left_out(ahead: float, exchanges: list[tuple[float, float, float]]) -> None:
    offset, now = Offset(), 1000.0

    for there, back, pause in exchanges:
        now += pause
        offset.add(now, now + there + back, now + there + ahead)

        assert offset.middle is not None
        assert abs(offset.middle - ahead) <= offset.width / 2 + 1e-6
        now += there + back


def test_a_clock_that_was_set_begins_a_new_interval() -> None:
    offset = Offset()
    offset.add(10.0, 10.001, 50.0)

    offset.add(11.0, 11.001, 151.0)

    assert offset.middle == pytest.approx(140.0, abs=0.01)


signs = st.lists(st.tuples(st.sampled_from([None, *ORDER]), st.booleans()), max_size=40)


@given(signs)
def test_a_status_changes_as_the_rule_says(given_signs: list[tuple[Status | None, bool]]) -> None:
    machine, status = Machine(), HEALTHY
    since: list[Status | None] = []

    for sign, sure in given_signs:
        since.append(sign)
        worse = [each for each in since[-LATEST:] if each is not None and ORDER.index(each) > ORDER.index(status)]
        better = [each for each in since[-LEAVE:] if each is not None and ORDER.index(each) < ORDER.index(status)]
        before = status
        if sure and sign is not None and ORDER.index(sign) > ORDER.index(status):
            status = sign
        elif len(worse) >= ENTER:
            status = min(worse, key=ORDER.index)
        elif len(better) == LEAVE:
            status = max(better, key=ORDER.index)
        if status is not before:
            since = []

        assert machine.feed(sign, sure=sure) is status
        assert machine.status is status


def test_one_slow_answer_changes_nothing_and_a_slow_server_with_fast_moments_is_found() -> None:
    machine = Machine()

    assert [machine.feed(sign) for sign in (DEGRADED, HEALTHY, HEALTHY, DEGRADED, HEALTHY, DEGRADED)] == [
        *[HEALTHY] * 5,
        DEGRADED,
    ]


def test_a_time_between_the_thresholds_speaks_for_nothing() -> None:
    assert [grade(each, 0.1) for each in (0.069, 0.071, 0.1, 0.101)] == [HEALTHY, None, None, DEGRADED]
