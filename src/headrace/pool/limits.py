"""The limits of a pool that lends: checked when it is made and resized; the errors are also redis-py's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from headrace.errors import OptionError
from headrace.pool.client_errors import ClientOptionError
from headrace.pool.lanes import Lane, check_maximum, is_whole, parse_shares, scale_shares
from headrace.pool.ledger import LaneBook, Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping

C = TypeVar("C")

#: Connections of a pool whose maximum is not given, as redis-py 8 has it.
DEFAULT_MAXIMUM: Final = 100


def make_ledger(maximum: int, minimum: int, lanes: Mapping[str, int] | None) -> Ledger[Any]:
    """Make the ledger of a pool; its errors are also redis-py's."""
    check_minimum(minimum, maximum)
    try:
        return Ledger(maximum, minimum, lanes)
    except OptionError as error:
        raise ClientOptionError(str(error)) from error


def check_minimum(minimum: int, maximum: int) -> None:
    """Raise OptionError unless the maximum is one, and the minimum lies between none and it."""
    try:
        check_maximum(maximum)
    except OptionError as error:
        raise ClientOptionError(str(error)) from error
    if not is_whole(minimum) or not 0 <= minimum <= maximum:
        raise ClientOptionError(
            f"min_connections={minimum!r:.40}: expected a whole number from 0 to max_connections={maximum!r:.40}."
        )


def plan_limits(
    ledger: Ledger[Any], maximum: int, before: int, minimum: int | None, lanes: Mapping[str, int] | None
) -> tuple[int, dict[Lane, int]]:
    """Return the minimum and the shares of a pool that is resized; what is not given follows.

    Args:
        ledger: The book, with the limits so far.
        maximum: The new maximum, or the one so far.
        before: The minimum so far; it is lowered to a new maximum below it.
        minimum: As the caller gave it.
        lanes: As the caller gave them; without any, the lanes that have a share keep their proportions.

    Raises:
        OptionError: A value is outside its bounds, or the shares do not add up.
    """
    check_minimum(0, maximum)
    least = min(before, maximum) if minimum is None else minimum
    check_minimum(least, maximum)
    try:
        if lanes:
            return least, parse_shares(lanes, maximum)
        shares = {lane: book.share for lane, book in ledger.lanes.items() if book.share}
        return least, scale_shares(shares, maximum)
    except OptionError as error:
        raise ClientOptionError(str(error)) from error


def find_lane(name: str, ledger: Ledger[C], lane: str) -> LaneBook[C]:
    """Return the book of a lane.

    Args:
        name: Name of the pool.
        ledger: Its book.
        lane: The name that a caller gave.

    Raises:
        OptionError: The pool has no such lane.
    """
    book = next((book for known, book in ledger.lanes.items() if known == lane), None)
    if book is None:
        known = ", ".join(ledger.lanes)
        raise ClientOptionError(f"lane={lane!r:.40}: expected one of the lanes of pool '{name}': {known}.")
    return book
