"""Lanes: the shares of a pool, one for each kind of traffic, that add up to its maximum.

A lane never uses more than its share and never borrows from another, so a lane that is full delays nobody else. All of
it is arithmetic on plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from headrace.errors import OptionError

#: Largest maximum of a pool.
MOST_CONNECTIONS: Final = 10_000


class Lane(StrEnum):
    """What a connection is used for; the order is the order in which lanes are served."""

    CONTROL = "control"
    BLOCKING = "blocking"
    JOBS = "jobs"
    USER = "user"


#: How the pool of an app is divided: percent of its maximum, at least one connection each, the rest to users. A worker
#: needs one connection of each of the first three.
APP_PERCENT: Final = {Lane.CONTROL: 10, Lane.BLOCKING: 15, Lane.JOBS: 15}


def check_maximum(maximum: object) -> None:
    """Check the maximum of a pool.

    Raises:
        OptionError: It is no whole number from 1 to MOST_CONNECTIONS.
    """
    if not isinstance(maximum, int) or not is_whole(maximum) or not 1 <= maximum <= MOST_CONNECTIONS:
        raise OptionError(
            f"max_connections={maximum!r:.40}: expected a whole number from 1 to {MOST_CONNECTIONS}. "
            "It is the most connections that the pool ever holds."
        )


def parse_shares(lanes: Mapping[str, int] | None, maximum: int) -> dict[Lane, int]:
    """Check the shares of a pool.

    Args:
        lanes: Lane to share, each at least 1; without any, everything belongs to the user lane.
        maximum: What they have to add up to.

    Raises:
        OptionError: No such lane, or the shares do not add up.

    Example:
        >>> parse_shares({"control": 2, "user": 8}, 10)
        {<Lane.CONTROL: 'control'>: 2, <Lane.USER: 'user'>: 8}
    """
    check_maximum(maximum)
    if lanes is None:
        return {Lane.USER: maximum}
    if not isinstance(lanes, Mapping):
        raise OptionError(
            f"lanes={lanes!r:.40}: expected a mapping of lane to share, such as {{'user': {maximum}}}. "
            "A URL cannot hold it."
        )
    shares: dict[Lane, int] = {}
    for lane in Lane:
        share = lanes.get(lane)
        if share is None:
            continue
        if not is_whole(share) or share < 1:
            raise OptionError(f"lanes: {lane}={share!r:.40}: expected a whole number of at least 1, or no such lane.")
        shares[lane] = share
    unknown = [str(name) for name in lanes if name not in shares]
    if unknown or sum(shares.values()) != maximum:
        raise OptionError(
            f"lanes={ {str(lane): share for lane, share in lanes.items()} }: expected shares of "
            f"{', '.join(Lane)} that add up to max_connections={maximum}, not to {sum(shares.values())}."
        )
    return shares


def app_shares(maximum: int) -> dict[Lane, int]:
    """Divide the maximum of an app's pool among all four lanes; below four, lanes share what there is.

    Example:
        >>> {str(lane): share for lane, share in app_shares(100).items()}
        {'control': 10, 'blocking': 15, 'jobs': 15, 'user': 60}
        >>> {str(lane): share for lane, share in app_shares(4).items()}
        {'control': 1, 'blocking': 1, 'jobs': 1, 'user': 1}
    """
    # Rounded up, so that ten connections carry one worker and twenty carry two.
    shares = {lane: -(-maximum * percent // 100) for lane, percent in APP_PERCENT.items()}
    return {**shares, Lane.USER: maximum - sum(shares.values())}


def scale_shares(shares: Mapping[Lane, int], maximum: int) -> dict[Lane, int]:
    """Divide another maximum in the same proportions, each lane keeping at least one.

    Raises:
        OptionError: There are more lanes than connections.

    Example:
        >>> scale_shares({Lane.CONTROL: 1, Lane.USER: 9}, 20)
        {<Lane.CONTROL: 'control'>: 2, <Lane.USER: 'user'>: 18}
    """
    if maximum < len(shares):
        raise OptionError(
            f"max_connections={maximum}: expected at least {len(shares)}, one for each lane ({', '.join(shares)})."
        )
    before = sum(shares.values())
    spare = maximum - len(shares)
    # Each lane gets its one, and the rest is divided by largest remainder.
    exact = {lane: max(0.0, maximum * share / before - 1) for lane, share in shares.items()}
    scale = spare / total if (total := sum(exact.values())) else 0.0
    scaled = {lane: 1 + int(part * scale) for lane, part in exact.items()}
    rest = maximum - sum(scaled.values())
    order = sorted(exact, key=lambda lane: (exact[lane] * scale) % 1, reverse=True)
    for index in range(rest):
        scaled[order[index % len(order)]] += 1
    return scaled


def is_whole(value: object) -> bool:
    """Tell whether a value is a whole number, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)
