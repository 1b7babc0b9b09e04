"""One look at what the process uses, by each of the limits that it has."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from headrace.memory.cgroup import find_group
from headrace.memory.limits import SPARE, find_limit
from headrace.memory.probes import read_usage
from headrace.memory.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.memory.limits import Limit

Gauge: TypeAlias = Literal["budget", "address space", "cgroup"]

#: The limits themselves are looked up again after this long, seconds: a control group can be changed at any time.
LOOK_AGAIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was used at one moment.

    Attributes:
        at: Time, as `time.monotonic` gives it.
        used_bytes: Resident size of this process and of the child processes that run its jobs.
        virtual_bytes: Address space of this process.
        child_bytes: The part of those child processes in `used_bytes`.
        share: How much of the tightest limit is used; 1.0 is all of it.
        gauge: Which limit that is: the budget of this process, its address space, or all of its control group.
        limit: The limits that it was read against.
    """

    at: float
    used_bytes: int
    virtual_bytes: int
    child_bytes: int
    share: float
    gauge: Gauge
    limit: Limit

    def own_share(self, used_bytes: int, virtual_bytes: int) -> float:
        """Return what would be used of the limits that are this process's own, with other figures."""
        share = used_bytes / self.limit.budget_bytes
        space = self.limit.address_space_bytes
        return share if space is None else max(share, virtual_bytes / space)


class Reader:
    """Read what is used, against limits that are looked up now and then.

    Attributes:
        group: The control group of this process, None without one.
        reserve: Address space that is held back, and counts as unused.
    """

    def __init__(self) -> None:
        self.reserve = Reserve()
        self.group = find_group()
        self._limit: Limit | None = None
        self._asked: tuple[int, int] = (-1, -1)
        self._looked_at = 0.0
        self._group_limit: int | None = None

    def limit(self, setting_mb: int, processes: int) -> Limit:
        """Return the limit of this process.

        Args:
            setting_mb: HEADRACE_MEMORY_LIMIT, 0 for none.
            processes: Worker processes that share it.
        """
        now = time.monotonic()
        if self._limit is None or self._asked != (setting_mb, processes) or now - self._looked_at > LOOK_AGAIN:
            self._limit = find_limit(setting_mb, processes, self.group)
            self._group_limit = None if self.group is None else self.group.limit()
            self._asked, self._looked_at = (setting_mb, processes), now
        return self._limit

    def hold_back(self, limit: Limit) -> None:
        """Hold back address space for a stop, if there is a limit of it."""
        if limit.address_space_bytes is not None:
            self.reserve.hold(SPARE if limit.address_space_bytes >= 3 * SPARE else limit.address_space_bytes // 3)

    def read(self, limit: Limit, children: Iterable[int]) -> Reading:
        """Read what is used now.

        Args:
            limit: From `limit`.
            children: Process ids of the children that run jobs.
        """
        usage = read_usage()
        virtual = usage.virtual - self.reserve.size_bytes
        child_bytes = sum(read_usage(pid).resident for pid in children)
        used = usage.resident + child_bytes
        shares: list[tuple[float, Gauge]] = [(used / limit.budget_bytes, "budget")]
        if limit.address_space_bytes is not None:
            shares.append((virtual / limit.address_space_bytes, "address space"))
        if self.group is not None and self._group_limit:
            group_used = self.group.used()
            if group_used is not None:
                shares.append((group_used / self._group_limit, "cgroup"))
        share, gauge = max(shares)
        return Reading(time.monotonic(), used, virtual, child_bytes, share, gauge, limit)
