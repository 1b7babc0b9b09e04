"""The demand for connections, added up by consumer for one process and for the fleet: pure arithmetic on plain numbers.

An app needs few connections, since its parts share them (docs/decisions/0003): two of its own, and two for each worker.
What is left of its maximum is for redis-py clients that borrow from `app.pool`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from headrace.pool.lanes import MOST_CONNECTIONS, Lane, app_shares

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Clients that borrow at the same time in a process without workers, as long as nothing was measured.
ASSUMED_BORROWERS: Final = 10
#: Part of maxclients that is left to people, monitoring and replicas, percent, and the least number of it.
RESERVE_PERCENT: Final = 2
RESERVE_LEAST: Final = 4
#: The least maximum that a pool of an app may have, one connection for each lane; it is never refused.
LEAST_MAXIMUM: Final = 4

Verdict: TypeAlias = Literal["fits", "near", "over", "unknown"]


class Demand(msgspec.Struct, frozen=True):
    """What one process uses connections for.

    Attributes:
        workers: Workers that run in it.
        slots: Slots of all of them.
        borrowed: Most connections that redis-py clients wanted at once in the last minute, those that waited counted;
            None when nothing was measured yet.
        dashboards: Dashboards that it serves.
        auto: Whether its maximum follows the load.
    """

    workers: int = 0
    slots: int = 0
    borrowed: int | None = None
    dashboards: int = 0
    auto: bool = False

    @property
    def borrowers(self) -> int:
        """Connections that redis-py clients are expected to want at once: measured, else one for each slot."""
        if self.borrowed is not None:
            return self.borrowed
        return self.slots if self.workers else ASSUMED_BORROWERS


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the fleet, as it stands in the budget; `places` is its maximum."""

    process: str
    places: int
    demand: Demand


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of its clients.

    Attributes:
        maxclients: Most clients that it accepts, None when it does not say.
        clients: Clients that are connected now, None when it does not say.
        source: Where maxclients comes from: INFO, CONFIG or unknown.
    """

    maxclients: int | None = None
    clients: int | None = None
    source: Literal["INFO", "CONFIG", "unknown"] = "unknown"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections all processes together may have.

    Attributes:
        share: The fleet's share of maxclients, which processes whose maximum follows the load never pass.
        most: maxclients less the reserve and less clients that are not of the fleet.
        reserve: What is left to people, monitoring and replicas.
        outside: Clients connected now that cannot be of the fleet; there may be more.
    """

    share: int
    most: int
    reserve: int
    outside: int


@dataclass(frozen=True, slots=True)
class Row:
    """One consumer: what it uses connections for, and how many it needs in this process and in the fleet."""

    consumer: str
    process: int
    fleet: int
    text: str


@dataclass(frozen=True, slots=True)
class Sizing:
    """The demand against what there is, and what follows.

    Attributes:
        rows: Demand by consumer.
        need: Connections that this process needs, all rows added up.
        fleet_need: The same for the fleet.
        links: Connections that this process needs without any client that borrows.
        fleet_links: The same for the fleet.
        minimum: Connections that the pool keeps open.
        maximum: Connections that the pool never passes.
        processes: Processes of the fleet, this one counted.
        places: The maxima of all of them added up.
        auto: Whether the maximum follows the load.
        server: What the server says.
        limits: What the fleet may have, None when maxclients is unknown.
        recommended: REDIS_MAX_CONNECTIONS that fits this process.
        reason: Why, in one sentence.
        verdict: `fits`; `near`: the maxima pass the fleet's share; `over`: they do not fit at all; `unknown`.
        advice: What to do about it; empty when it fits.
    """

    rows: tuple[Row, ...]
    need: int
    fleet_need: int
    links: int
    fleet_links: int
    minimum: int
    maximum: int
    processes: int
    places: int
    auto: bool
    server: ServerFacts
    limits: Limits | None
    recommended: int
    reason: str
    verdict: Verdict
    advice: str


def lane_needs(demand: Demand) -> dict[Lane, int]:
    """Return how many connections each lane of one process needs.

    Example:
        >>> {str(lane): need for lane, need in lane_needs(Demand(workers=2, slots=200, borrowed=7)).items()}
        {'control': 1, 'blocking': 2, 'jobs': 2, 'user': 8}
    """
    return {
        Lane.CONTROL: 1,
        Lane.BLOCKING: demand.workers,
        Lane.JOBS: demand.workers,
        Lane.USER: 1 + demand.dashboards + demand.borrowers,
    }


def links_needed(demand: Demand) -> int:
    """Return how many connections a process needs without any client that borrows.

    Example:
        >>> links_needed(Demand()), links_needed(Demand(workers=1, slots=100))
        (2, 4)
    """
    return 2 + 2 * demand.workers + demand.dashboards


def smallest_maximum(demand: Demand) -> int:
    """Return the smallest maximum at which each lane of an app's pool has what it needs, up to MOST_CONNECTIONS.

    Example:
        >>> smallest_maximum(Demand(borrowed=0))
        4
    """
    needs = lane_needs(demand)
    maximum = max(LEAST_MAXIMUM, sum(needs.values()))
    # Why a search: shares are rounded up, so that the user lane does not grow with each step.
    while maximum < MOST_CONNECTIONS and any(app_shares(maximum)[lane] < need for lane, need in needs.items()):
        maximum += 1
    return min(maximum, MOST_CONNECTIONS)


def limit_fleet(server: ServerFacts, share_percent: int, fleet_places: int) -> Limits | None:
    """Return what all processes may have together, or None when the server does not say what it accepts.

    Args:
        server: What the server says.
        share_percent: Share of maxclients for the fleet, 1..100.
        fleet_places: The maxima of the processes that are connected already.

    Example:
        >>> limit_fleet(ServerFacts(1000, 130, "INFO"), 80, 100)
        Limits(share=800, most=950, reserve=20, outside=30)
    """
    if server.maxclients is None:
        return None
    reserve = max(RESERVE_LEAST, server.maxclients * RESERVE_PERCENT // 100)
    outside = max(0, (server.clients or 0) - fleet_places)
    most = max(0, server.maxclients - reserve - outside)
    return Limits(min(most, server.maxclients * share_percent // 100), most, reserve, outside)


def add_up(demand: Demand, others: Sequence[Member]) -> tuple[Row, ...]:
    """Add up the demand by consumer, for this process and for all.

    Example:
        >>> rows = add_up(Demand(workers=1, slots=50), [Member("b", 100, Demand(workers=2, slots=20, borrowed=3))])
        >>> [(row.consumer, row.process, row.fleet) for row in rows][:3]
        [('worker control', 1, 2), ('blocking', 1, 3), ('jobs', 1, 3)]
    """
    fleet = [demand, *(member.demand for member in others)]
    slots = sum(each.slots for each in fleet)
    if demand.borrowed is not None:
        borrowed = f"{demand.borrowed} for clients that borrow, as measured in the last minute"
    elif demand.workers:
        borrowed = f"{demand.borrowers} for clients that borrow, one for each slot, as nothing was measured yet"
    else:
        borrowed = f"{demand.borrowers} for clients that borrow, as nothing was measured yet"
    texts: list[tuple[str, Lane | None, str]] = [
        ("worker control", Lane.CONTROL, "leases, cancels, outcomes: one connection a process"),
        ("blocking", Lane.BLOCKING, "waits for jobs of all queues: one connection a worker"),
        (
            "jobs",
            Lane.JOBS,
            f"reserve and settle: one connection a worker for all slots ({demand.slots}, fleet {slots})",
        ),
        ("dashboard", None, "one connection a dashboard"),
        ("telemetry", None, "none of its own: it travels on the connection of control"),
        ("user", Lane.USER, f"enqueue and results: one connection a process, and {borrowed}"),
    ]
    rows: list[Row] = []
    for consumer, lane, text in texts:
        counts = [_count(each, consumer, lane) for each in fleet]
        rows.append(Row(consumer, counts[0], sum(counts), text))
    return tuple(rows)


def _count(demand: Demand, consumer: str, lane: Lane | None) -> int:
    if lane is Lane.USER:
        return lane_needs(demand)[lane] - demand.dashboards
    if lane is not None:
        return lane_needs(demand)[lane]
    return demand.dashboards if consumer == "dashboard" else 0


def size_up(
    demand: Demand,
    others: Sequence[Member],
    server: ServerFacts,
    *,
    minimum: int,
    maximum: int,
    share_percent: int,
    strangers: int = 0,
    clients_here: int | None = None,
) -> Sizing:
    """Hold the demand against what there is, and recommend a maximum.

    Args:
        demand: What this process uses connections for.
        others: The other processes of the fleet.
        server: What the server says.
        minimum: Connections that this pool keeps open.
        maximum: Connections that this pool never passes.
        share_percent: Share of maxclients for the fleet, 1..100.
        strangers: Processes with workers that are in the registry and not in the budget.
        clients_here: Connections that this process has open now, None for its maximum.
    """
    known = [*others, *(Member("unknown", links_needed(Demand(workers=1)), Demand(1, 0, 0)) for _ in range(strangers))]
    rows = add_up(demand, known)
    places = maximum + sum(member.places for member in known)
    limits = limit_fleet(server, share_percent, places - maximum + (maximum if clients_here is None else clients_here))
    recommended, reason = recommend(demand, limits, 1 + len(known), maximum)
    verdict, advice = judge(places, limits, 1 + len(known), server)
    return Sizing(
        rows=rows,
        need=sum(row.process for row in rows),
        fleet_need=sum(row.fleet for row in rows),
        links=links_needed(demand),
        fleet_links=sum(links_needed(each) for each in (demand, *(member.demand for member in known))),
        minimum=minimum,
        maximum=maximum,
        processes=1 + len(known),
        places=places,
        auto=demand.auto,
        server=server,
        limits=limits,
        recommended=recommended,
        reason=reason,
        verdict=verdict,
        advice=advice,
    )


def recommend(demand: Demand, limits: Limits | None, processes: int, maximum: int) -> tuple[int, str]:
    """Return the maximum that fits a process, and why, in one or two sentences.

    What clients will borrow is only assumed as long as nothing was measured: an assumption asks nobody to raise a
    maximum that carries the app itself.
    """
    wanted = smallest_maximum(demand)
    links = links_needed(demand)
    part = wanted if limits is None else max(LEAST_MAXIMUM, limits.share // processes)
    assumed = demand.borrowed is None
    least = smallest_maximum(msgspec.structs.replace(demand, borrowed=0))
    if assumed and least <= maximum < wanted and (limits is None or maximum <= part):
        spare = app_shares(maximum)[Lane.USER] - 1 - demand.dashboards
        text = f"{links} connections of the app itself fit in {maximum}, with {spare} for clients that borrow. How many"
        return maximum, f"{text} those want was not measured yet; if {demand.borrowers} at once, allow {wanted}."
    source = "as assumed" if assumed else "as measured"
    text = f"{links} connections of the app itself and {demand.borrowers} for clients that borrow ({source}) "
    text += f"need {wanted} with the shares of all lanes"
    if wanted > part:
        return part, f"{text}, but the fleet of {processes} shares {limits.share if limits else part} places."
    if wanted > maximum and not demand.auto:
        text += f", which is more than the {maximum} that are allowed now"
    return wanted, f"{text}."


def judge(places: int, limits: Limits | None, processes: int, server: ServerFacts) -> tuple[Verdict, str]:
    """Return whether the maxima of all processes fit, and what to do when they do not."""
    if limits is None:
        return "unknown", "The server does not tell its maxclients: compare it with the sum of all maxima by hand."
    fleet = f"The fleet of {processes} may open {places} connections"
    remedy = "Lower REDIS_MAX_CONNECTIONS, set it to auto, run fewer processes, or raise maxclients of the server."
    if places > limits.most:
        taken = f", of which {limits.reserve} are kept free and {limits.outside} are used by others"
        return "over", f"{fleet}, and the server accepts {server.maxclients}{taken}. {remedy}"
    if places > limits.share:
        return "near", f"{fleet}, which is more than the fleet's share of {limits.share}. {remedy}"
    return "fits", ""


def head_room(mean: float) -> int:
    """Return how many connections let nearly nobody wait when `mean` are in use on average.

    Square-root staffing: the mean plus twice its root. Of callers that come at random, about one in fifty then waits.
    Source: S. Halfin and W. Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", Operations
    Research 29(3), 1981.

    Example:
        >>> [head_room(mean) for mean in (0.0, 1.0, 16.0, 100.0)]
        [0, 3, 24, 120]
    """
    return math.ceil(mean + 2.0 * math.sqrt(mean))
