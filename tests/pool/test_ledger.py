"""The ledger, case by case; tests/model asks it in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.errors import OptionError, UsageError
from headrace.pool.lanes import Lane
from headrace.pool.ledger import MOST_ERROR_CLASSES, LaneBook, Ledger, Member

if TYPE_CHECKING:
    from collections.abc import Sequence


class Caller:
    def __init__(self, since: float = 0.0, deadline: float = 100.0, *, wanted: bool = True) -> None:
        self.since, self.deadline, self.wanted = since, deadline, wanted
        self.got: Member[str] | None = None
        self.error: Exception | None = None

    def accept(self, member: Member[str]) -> bool:
        self.got = member if self.wanted else None
        return self.wanted

    def refuse(self, error: Exception) -> None:
        self.error = error


def filled(maximum: int, shares: dict[str, int] | None = None, names: Sequence[str] = "abcdefgh") -> Ledger[str]:
    """Return a ledger with all of its connections idle, `a` at the bottom."""
    ledger: Ledger[str] = Ledger(maximum, 0, shares)
    for name in names[:maximum]:
        ledger.open_began()
        assert ledger.opened(name, 0.0, 1_000.0) is None
    return ledger


def book(ledger: Ledger[str], lane: Lane = Lane.USER) -> LaneBook[str]:
    return ledger.lanes[lane]


def test_the_connection_used_last_is_lent_first() -> None:
    ledger = filled(3)

    first, second = (ledger.take(book(ledger), 1.0) for _ in range(2))

    assert first is not None
    assert second is not None
    assert (first.connection, second.connection) == ("c", "b")


def test_a_broken_connection_lets_its_lane_have_what_others_left_idle() -> None:
    ledger = filled(2, {"jobs": 1, "user": 1})
    held = ledger.take(book(ledger, Lane.JOBS), 1.0)
    assert held is not None
    caller = Caller()
    ledger.wait(book(ledger, Lane.JOBS), caller)

    ended = ledger.give_back(held.connection, 2.0, usable=False)

    assert ended is held
    assert caller.got is not None
    assert caller.got.connection == "a"


def test_a_waiter_who_was_cancelled_is_passed_over_without_losing_the_connection() -> None:
    ledger = filled(1)
    held = ledger.take(book(ledger), 1.0)
    assert held is not None
    cancelled, caller = Caller(wanted=False), Caller()
    ledger.wait(book(ledger), cancelled)
    ledger.wait(book(ledger), caller)

    ledger.give_back(held.connection, 2.0, usable=True)

    assert (cancelled.got, caller.got) == (None, held)
    assert not ledger.leave(book(ledger), cancelled)
    assert ledger.waiting == 0


def test_who_gave_back_a_dead_connection_stands_first_and_keeps_his_deadline() -> None:
    ledger = filled(1)
    callers = [Caller(since=1.0, deadline=50.0), Caller(since=2.0, deadline=60.0)]
    for caller in callers:
        ledger.wait(book(ledger), caller)
    early = Caller(since=0.5, deadline=90.0)

    ledger.wait(book(ledger), early, first=True)

    assert list(book(ledger).waiters) == [early, *callers]
    assert ledger.next_deadline() == 50.0
    assert [(waiter, ahead) for _, waiter, ahead in ledger.expire(60.0)] == [(callers[0], 1), (callers[1], 1)]
    assert ledger.next_deadline() == 90.0


def test_callers_who_wait_equally_long_are_told_without_a_look_through_the_line() -> None:
    ledger = filled(1)
    callers = [Caller(since=number, deadline=number + 10.0) for number in range(100)]
    for caller in callers:
        ledger.wait(book(ledger), caller)
    assert book(ledger).in_order

    late = [waiter for _, waiter, _ in ledger.expire(14.5)]

    assert late == callers[:5]
    assert ledger.next_deadline() == 15.0
    assert (book(ledger).timeouts, ledger.timeouts_total) == (5, 5)


def test_a_shrink_closes_no_more_than_it_must_while_others_are_closing() -> None:
    ledger = filled(6)
    ledger.resize(3, 0, {Lane.USER: 3})
    assert len(ledger.retire_surplus(1.0, 1e9)) == 3

    kept = ledger.take(book(ledger), 2.0)
    assert kept is not None
    assert ledger.give_back(kept.connection, 3.0, usable=True) is None

    assert (len(ledger.idle), ledger.closing, ledger.total) == (3, 3, 6)
    assert ledger.retire_surplus(4.0, 1e9) == []


def test_a_lane_above_its_lowered_share_hides_nobody_else() -> None:
    ledger: Ledger[str] = Ledger(6, 0, {"control": 3, "user": 3})
    for _ in range(3):
        assert ledger.reserve(Lane.CONTROL)
    ledger.resize(6, 0, {Lane.CONTROL: 1, Lane.USER: 5})
    ledger.wait(book(ledger, Lane.CONTROL), Caller())

    ledger.wait(book(ledger), Caller())

    assert ledger.openings_wanted() == 1


def test_what_was_not_lent_is_refused() -> None:
    ledger = filled(1)

    with pytest.raises(UsageError, match="Release each connection once"):
        ledger.give_back("a", 1.0, usable=True)


def test_errors_are_counted_by_class_within_a_bound() -> None:
    ledger = filled(1)

    for number in range(MOST_ERROR_CLASSES + 10):
        ledger.count_name(f"Error{number}")

    assert len(ledger.errors) == MOST_ERROR_CLASSES + 1
    assert ledger.errors["other"] == 10


def test_wrong_shares_change_nothing() -> None:
    ledger = filled(4)

    with pytest.raises(OptionError):
        ledger.resize(4, 0, {Lane.USER: 3})

    assert (ledger.maximum, book(ledger).share) == (4, 4)
