"""Jobs that ran in lost workers again and again run one at a time, and nobody waits for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from headrace.record import State
from headrace.worker.quarantine import Quarantine

if TYPE_CHECKING:
    from headrace.worker.attempt import Attempt
    from headrace.worker.served import Served


class Stalled:
    """What the quarantine looks at of an attempt."""

    def __init__(self, stalls: int, served: object) -> None:
        self.state = State(0, stalls, 0)
        self.served = served


def attempt(stalls: int, served: object = None) -> Attempt:
    return cast("Attempt", Stalled(stalls, served))


@pytest.mark.parametrize(("max_stalled", "free"), [(0, 0), (1, 0), (2, 1), (3, 1), (100, 1)])
def test_a_job_enters_freely_up_to_the_stalls_that_leave_it_a_chance_alone(max_stalled: int, free: int) -> None:
    quarantine = Quarantine(max_stalled=max_stalled)
    assert quarantine.enter(attempt(free + 1))

    assert quarantine.enter(attempt(free))
    assert not quarantine.enter(attempt(free + 1))
    assert len(quarantine) == 1


def test_jobs_follow_each_other_in_their_order() -> None:
    quarantine = Quarantine(max_stalled=3)
    jobs = [attempt(2) for _ in range(3)]

    assert [quarantine.enter(job) for job in jobs] == [True, False, False]
    assert quarantine.leave(jobs[1]) is None
    assert quarantine.leave(jobs[0]) is jobs[1]
    assert quarantine.enter(jobs[1])
    assert not quarantine.enter(attempt(5))
    assert quarantine.leave(jobs[1]) is jobs[2]


def test_a_job_that_comes_up_again_while_it_is_inside_enters() -> None:
    quarantine = Quarantine(max_stalled=3)
    job = attempt(2)

    assert quarantine.enter(job)
    assert quarantine.enter(job)
    assert quarantine.leave(job) is None
    assert quarantine.enter(attempt(2))


def test_waiting_jobs_are_taken_back_by_queue_and_removed_one_by_one() -> None:
    quarantine = Quarantine(max_stalled=3)
    mail, bulk = cast("Served", object()), cast("Served", object())
    first, second, third, fourth = (attempt(2, served) for served in (mail, mail, bulk, mail))
    for job in (first, second, third, fourth):
        quarantine.enter(job)

    assert quarantine.remove(second)
    assert not quarantine.remove(first)
    assert quarantine.take_back(mail) == [fourth]
    assert quarantine.take_back() == [third]
    assert len(quarantine) == 0
