"""Totals over things that come and go, such as workers and subscriptions: what is gone still counts.

A total that drops reads as a restart, after which everything that is left would count once more.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Carried:
    """Add up totals, keeping those of things that have gone as they were seen last.

    Args:
        width: How many totals each thing has.

    Example:
        >>> class Thing: ...
        >>> carried, one, two = Carried(1), Thing(), Thing()
        >>> carried.add([(one, (5,)), (two, (2,))])
        [7]
        >>> del one
        >>> carried.add([(two, (3,))])
        [8]
    """

    def __init__(self, width: int) -> None:
        self._gone = [0] * width
        # Bounded by what was there at the last look.
        self._seen: dict[int, tuple[weakref.ref[Any], Sequence[int]]] = {}

    def add(self, present: Iterable[tuple[Any, Sequence[int]]]) -> list[int]:
        """Return the totals of all things that are there, and of all that were."""
        before, self._seen = self._seen, {}
        for thing, totals in present:
            known = before.get(id(thing))
            if known is not None and known[0]() is thing:
                del before[id(thing)]
            self._seen[id(thing)] = (weakref.ref(thing), totals)
        for _, totals in before.values():
            self._gone = [sum(pair) for pair in zip(self._gone, totals, strict=True)]
        columns = zip(self._gone, *(totals for _, totals in self._seen.values()), strict=True)
        return [sum(column) for column in columns]
