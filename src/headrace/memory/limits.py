"""How much memory a process may use, and who says so.

What the system would enforce, and what a setting asks for, all count; the tightest of them wins. Where nothing is set,
the size of the machine decides. What several worker processes share is split between them.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from headrace.memory.cgroup import Group

Source: TypeAlias = Literal["setting", "cgroup v2", "cgroup v1", "physical", "default", "RLIMIT_AS"]

MIB: Final = 1_048_576
GIB: Final = 1_024 * MIB
#: Address space that is left for what a stopping worker still needs, such as a thread and buffers to read into, as a
#: process that has none left cannot even say so. At most a quarter of a small limit.
SPARE: Final = 32 * MIB
#: Least size of a machine, and the limit of all worker processes on it where nothing else is said. A machine sold with
#: 8 GB reports a little less, so each size begins somewhat below its name.
DEFAULTS: Final = ((7.2 * GIB, 4_096 * MIB), (3.6 * GIB, 2_048 * MIB), (1.8 * GIB, 1_024 * MIB))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One limit that was found.

    Attributes:
        source: Who says so.
        limit_bytes: The limit.
        shared: Whether all processes share it.
    """

    source: Source
    limit_bytes: int
    shared: bool = True


@dataclass(frozen=True, slots=True)
class Limit:
    """The memory that a process may use.

    Attributes:
        limit_bytes: The limit that counts.
        source: Where it comes from.
        processes: Processes that share it.
        budget_bytes: The part of this process.
        address_space_bytes: What may be used of RLIMIT_AS, which bounds reserved memory, used or not: 32 MB less than
            the limit itself. None for no such limit.
        considered: Every limit that was found, also those that are less tight.
    """

    limit_bytes: int
    source: Source
    processes: int
    budget_bytes: int
    address_space_bytes: int | None
    considered: tuple[Candidate, ...]

    def __str__(self) -> str:
        """Say it in one line, as people read it in the log."""
        part = f", {self.budget_bytes // MIB:,} MB for each of {self.processes}" if self.processes > 1 else ""
        return f"{self.limit_bytes // MIB:,} MB ({self.source}){part}"


def spare_of(address_space: int) -> int:
    """Return what is left out of a limit of the address space, in bytes."""
    return min(SPARE, address_space // 4)


def default_limit(physical_bytes: int) -> int:
    """Return the limit of all worker processes on a machine of this size where nothing else is said.

    Example:
        >>> [default_limit(gigabytes * GIB) // MIB for gigabytes in (1, 2, 4, 8, 64)]
        [512, 1024, 2048, 4096, 4096]
    """
    for size, limit in DEFAULTS:
        if physical_bytes >= size:
            return limit
    return physical_bytes // 2


def plan_limit(
    *,
    setting_bytes: int,
    group: tuple[int, int | None] | None,
    address_space: int | None,
    physical: int,
    processes: int,
) -> Limit:
    """Choose the limit that counts.

    Args:
        setting_bytes: What the setting says, 0 for nothing.
        group: Version and limit of the control group, None without one.
        address_space: RLIMIT_AS, None for no such limit.
        physical: Memory of the machine.
        processes: Worker processes that share the limit.

    Example:
        >>> limit = plan_limit(setting_bytes=0, group=(2, 512 * MIB), address_space=None, physical=8 * GIB, processes=2)
        >>> str(limit)
        '512 MB (cgroup v2), 256 MB for each of 2'
    """
    found: list[Candidate] = []
    if setting_bytes:
        found.append(Candidate("setting", setting_bytes))
    if group is not None and group[1] is not None:
        found.append(Candidate("cgroup v1" if group[0] == 1 else "cgroup v2", group[1]))
    is_set = bool(found) and min(candidate.limit_bytes for candidate in found) < physical
    if not is_set and address_space is None:
        found.append(Candidate("default", default_limit(physical)))
    found.append(Candidate("physical", physical))
    winner = min(found, key=lambda candidate: candidate.limit_bytes)
    budget = winner.limit_bytes // max(1, processes)
    if address_space is not None:
        address_space -= spare_of(address_space)
        # Why: it holds for each process alone, so that it is not split.
        found.append(Candidate("RLIMIT_AS", address_space, shared=False))
        if address_space < budget:
            winner, budget = found[-1], address_space
    ordered = tuple(sorted(found, key=lambda candidate: candidate.limit_bytes))
    return Limit(winner.limit_bytes, winner.source, processes, budget, address_space, ordered)


def find_limit(setting_mb: int, processes: int, group: Group | None) -> Limit:
    """Find what this process may use.

    Args:
        setting_mb: HEADRACE_MEMORY_LIMIT, 0 for none.
        processes: Worker processes that share the limit, 1 or more.
        group: The control group of this process.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return plan_limit(
        setting_bytes=setting_mb * MIB,
        group=None if group is None else (group.version, group.limit()),
        address_space=None if soft == resource.RLIM_INFINITY else soft,
        physical=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        processes=processes,
    )
