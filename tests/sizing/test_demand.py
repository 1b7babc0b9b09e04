"""The demand for connections: added up by consumer, held against the server, and a maximum that fits."""

from __future__ import annotations

import doctest

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pool.lanes import MOST_CONNECTIONS, app_shares
from headrace.sizing import demand as module
from headrace.sizing.demand import (
    Demand,
    Member,
    ServerFacts,
    Sizing,
    lane_needs,
    limit_fleet,
    size_up,
    smallest_maximum,
)

demands = st.builds(
    Demand,
    workers=st.integers(0, 20),
    slots=st.integers(0, 500),
    borrowed=st.none() | st.integers(0, 500),
    dashboards=st.integers(0, 2),
    auto=st.booleans(),
)
members = st.builds(Member, process=st.text(max_size=5), places=st.integers(2, 500), demand=demands)


def sized(server: ServerFacts, demand: Demand | None = None, others: int = 0, maximum: int = 100) -> Sizing:
    """Size up a process beside others of the same kind, each with the same maximum."""
    demand = demand or Demand(workers=1, slots=20)
    members = [Member(f"other{number}", maximum, demand) for number in range(others)]
    return size_up(demand, members, server, minimum=4, maximum=maximum, share_percent=80)


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


def test_the_table_adds_up_for_the_process_and_for_the_fleet() -> None:
    found = sized(ServerFacts(10_000, 50, "INFO"), Demand(workers=2, slots=50, borrowed=7), others=3)

    table = {row.consumer: (row.process, row.fleet) for row in found.rows}
    assert table == {
        "worker control": (1, 4),
        "blocking": (2, 8),
        "jobs": (2, 8),
        "dashboard": (0, 0),
        "telemetry": (0, 0),
        "user": (8, 32),
    }
    assert (found.need, found.fleet_need, found.processes, found.places) == (13, 52, 4, 400)


@given(demand=demands)
def test_the_recommended_maximum_gives_each_lane_what_it_needs(demand: Demand) -> None:
    recommended = size_up(demand, [], ServerFacts(), minimum=0, maximum=100, share_percent=80).recommended

    # Why: what is only assumed does not make anybody raise a maximum.
    known = msgspec.structs.replace(demand, borrowed=demand.borrowed or 0)
    shares = app_shares(recommended)
    assert all(shares[lane] >= need for lane, need in lane_needs(known).items())
    assert smallest_maximum(known) <= recommended <= smallest_maximum(demand) <= MOST_CONNECTIONS


def test_nobody_is_told_to_raise_a_maximum_because_of_what_was_not_measured() -> None:
    found = sized(ServerFacts(10_000, 40, "INFO"), Demand(workers=1, slots=100))

    assert (found.recommended, found.links) == (100, 4)
    assert found.reason == (
        "4 connections of the app itself fit in 100, with 59 for clients that borrow. How many those want was "
        "not measured yet; if 100 at once, allow 170."
    )


def test_a_maximum_that_proved_too_small_is_told_the_one_that_fits() -> None:
    found = sized(ServerFacts(10_000, 40, "INFO"), Demand(workers=1, slots=100, borrowed=100))

    assert found.recommended == 170
    assert "100 for clients that borrow (as measured) need 170" in found.reason
    assert "more than the 100 that are allowed now" in found.reason


def test_what_the_app_itself_needs_is_recommended_also_when_nothing_was_measured() -> None:
    demand = Demand(workers=20, slots=2_000)

    found = sized(ServerFacts(10_000, 40, "INFO"), demand, maximum=20)

    assert found.recommended == smallest_maximum(demand)
    assert found.links == 42


@given(
    demand=demands,
    others=st.lists(members, max_size=8),
    maxclients=st.integers(1, 20_000),
    clients=st.integers(0, 20_000),
    share=st.integers(1, 100),
    maximum=st.integers(4, 1_000),
)
def test_the_verdict_follows_from_the_sum_of_the_maxima(
    demand: Demand, others: list[Member], maxclients: int, clients: int, share: int, maximum: int
) -> None:
    server = ServerFacts(maxclients, clients, "INFO")

    found = size_up(demand, others, server, minimum=0, maximum=maximum, share_percent=share)

    limits = found.limits
    assert limits is not None
    assert found.places == maximum + sum(member.places for member in others)
    assert 0 <= limits.share <= limits.most <= maxclients
    expected = "over" if found.places > limits.most else "near" if found.places > limits.share else "fits"
    assert found.verdict == expected
    assert bool(found.advice) == (expected != "fits")
    assert found.fleet_need >= found.need == sum(row.process for row in found.rows)
    assert found.links == found.need - demand.borrowers
    assert found.fleet_links <= found.fleet_need


def test_a_fleet_that_fits_is_left_alone() -> None:
    found = sized(ServerFacts(10_000, 40, "INFO"), others=3)

    assert (found.verdict, found.advice) == ("fits", "")


def test_a_fleet_near_the_limit_is_told_so_with_the_remedy() -> None:
    found = sized(ServerFacts(460, 40, "INFO"), others=3)

    assert found.verdict == "near"
    assert "The fleet of 4 may open 400 connections, which is more than the fleet's share of 368" in found.advice
    assert "set it to auto" in found.advice


def test_a_fleet_that_cannot_fit_is_told_so_with_the_figures() -> None:
    found = sized(ServerFacts(256, 40, "INFO"), others=3)

    assert found.verdict == "over"
    assert "the server accepts 256, of which 5 are kept free and 0 are used by others" in found.advice


def test_clients_that_cannot_be_of_the_fleet_leave_less_for_it() -> None:
    limits = limit_fleet(ServerFacts(1_000, 700, "INFO"), 80, 100)

    assert limits is not None
    assert (limits.outside, limits.most, limits.share) == (600, 380, 380)


def test_an_unknown_limit_is_said_to_be_unknown() -> None:
    found = sized(ServerFacts())

    assert (found.verdict, found.limits) == ("unknown", None)
    assert "does not tell its maxclients" in found.advice


def test_a_crowded_fleet_gets_a_recommendation_that_it_can_afford() -> None:
    found = sized(ServerFacts(500, 100, "INFO"), Demand(workers=1, slots=100), others=9)

    assert found.recommended == 40
    wanted = smallest_maximum(Demand(workers=1, slots=100))
    assert f"4 connections of the app itself and 100 for clients that borrow (as assumed) need {wanted}" in found.reason
    assert "but the fleet of 10 shares 400 places" in found.reason


@pytest.mark.parametrize(
    ("demand", "text"),
    [
        (Demand(workers=1, slots=30), "30 for clients that borrow, one for each slot, as nothing was measured yet"),
        (Demand(), "10 for clients that borrow, as nothing was measured yet"),
        (Demand(workers=1, slots=30, borrowed=2), "2 for clients that borrow, as measured in the last minute"),
    ],
)
def test_the_table_says_whether_what_is_borrowed_was_measured(demand: Demand, text: str) -> None:
    found = sized(ServerFacts(), demand)

    assert text in found.rows[-1].text


def test_workers_that_are_only_in_the_registry_count_in_the_fleet() -> None:
    found = size_up(Demand(), [], ServerFacts(100, 5, "INFO"), minimum=0, maximum=10, share_percent=80, strangers=2)

    assert (found.processes, found.places) == (3, 18)
    assert {row.consumer: row.fleet for row in found.rows}["blocking"] == 2
