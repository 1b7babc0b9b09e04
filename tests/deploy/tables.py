"""Write the tables of docs/operating that are computed: connections by fleet, memory by machine.

    python -m tests.deploy.tables          write them

Every number comes from the code that decides at run time, but for those named here, each with the command it is from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.health.checks import MEMORY_WARN
from headrace.memory.limits import GIB, MIB, plan_limit
from headrace.memory.steps import Thresholds
from headrace.settings import Settings
from headrace.sizing.demand import Demand, ServerFacts, limit_fleet, smallest_maximum
from tests.docs.tables import fill, table, write_pages
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES: Final = ROOT / "docs" / "operating"

#: Processes, and the slots of each.
FLEETS: Final = ((1, 50), (2, 50), (4, 50), (4, 100), (8, 100), (16, 100), (50, 100), (100, 100))
#: Connections that the tasks of a process borrow at once; None stands for one a slot.
BORROWED: Final[tuple[int | None, ...]] = (0, 10, None)
#: Processes that run beside the others for a moment: a rolling restart starts the new one first.
BESIDE: Final = 1

#: Memory of a machine or container, and the cores that usually come with it: a process each.
MACHINES: Final = (
    (512 * MIB, 1), (1 * GIB, 1), (2 * GIB, 2), (4 * GIB, 2), (8 * GIB, 4), (16 * GIB, 8),
)  # fmt: skip
#: Bytes of the server's memory for one waiting job among a million: docs/benchmarks.md, from benchmarks/million.py.
JOB_BYTES: Final = 321


def maximum_for(slots: int, borrowed: int | None) -> int:
    """Return REDIS_MAX_CONNECTIONS of a process with one worker."""
    return smallest_maximum(Demand(workers=1, slots=slots, borrowed=slots if borrowed is None else borrowed))


def least_maxclients(places: int) -> int:
    """Return the smallest maxclients of which the fleet's share has room for that many connections."""
    maxclients = places
    while (
        limits := limit_fleet(ServerFacts(maxclients, places, "INFO"), Settings().pool_fleet_share, places)
    ) is None or (limits.share < places):
        maxclients += 1
    return maxclients


def fleet_row(processes: int, slots: int) -> list[str]:
    """Return one line: for each way to borrow, the maximum of a process, of the fleet, and maxclients."""
    row = [f"{processes}", f"{slots}"]
    for borrowed in BORROWED:
        maximum = maximum_for(slots, borrowed)
        places = maximum * (processes + BESIDE)
        row += [f"{maximum}", f"{places:,}", f"{least_maxclients(places):,}"]
    return row


def fleet_table() -> str:
    """Connections by processes and slots."""
    heads = ["processes", "slots each"]
    for what in ("none", "10", "one a slot"):
        heads += [f"borrow {what}: maximum", "fleet", "maxclients"]
    return table(heads, [fleet_row(*fleet) for fleet in FLEETS])


def shown(size: int) -> str:
    """Write a size as people name machines."""
    return f"{size // GIB} GB" if size >= GIB else f"{size // MIB} MB"


def workers_table() -> str:
    """What a container, or a machine without a limit, gives to its worker processes."""
    thresholds = Thresholds.of(Settings().memory_threshold)
    rows = []
    for size, processes in MACHINES:
        group = (2, size)
        limit = plan_limit(setting_bytes=0, group=group, address_space=None, physical=64 * GIB, processes=processes)
        open_limit = plan_limit(setting_bytes=0, group=None, address_space=None, physical=size, processes=processes)
        budget = limit.budget_bytes / MIB
        begin = (thresholds.elevated, thresholds.high, thresholds.critical)
        rows.append(
            [shown(size), f"{processes}", f"{budget:,.0f}", *(f"{share * budget:,.0f}" for share in begin),
             f"{(1 - thresholds.critical) * budget:.0f}", f"{open_limit.limit_bytes // MIB:,}",
             f"{open_limit.budget_bytes // MIB:,}"]
        )  # fmt: skip
    heads = ["container", "processes", "each", "elevated", "high", "critical", "left then",
             "on a machine without a limit: all", "each"]  # fmt: skip
    return table(heads, rows)


def jobs_that_fit(maxmemory: int, job_bytes: int = JOB_BYTES) -> int:
    """Return how many waiting jobs a server holds before its memory is told to be short."""
    return int(maxmemory * MEMORY_WARN) // job_bytes


def server_table() -> str:
    """What a machine of the server's own holds."""
    rows = []
    for size, _ in MACHINES:
        maxmemory = size // 2
        fit = jobs_that_fit(maxmemory)
        rows.append([shown(size), f"{maxmemory // MIB}mb", f"{fit // 10_000 * 10_000:,}"])
    return table(["memory", "maxmemory", "waiting jobs"], rows)


PARTS: Final[tuple[tuple[str, str, Callable[[], str]], ...]] = (
    ("sizing.md", "fleets", fleet_table),
    ("memory.md", "workers", workers_table),
    ("memory.md", "servers", server_table),
)


def pages() -> dict[Path, str]:
    """Return every page that has a computed part, as it should be."""
    texts: dict[Path, str] = {}
    for name, part, write in PARTS:
        path = PAGES / name
        texts[path] = fill(texts.get(path) or path.read_text(), part, write())
    return texts


if __name__ == "__main__":
    write_pages(pages())
