"""Where memory is allocated, line by line: tracemalloc, only when somebody asks, since it costs while it runs."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from dataclasses import dataclass
from typing import Final

from headrace.errors import UsageError

#: What is said of the cost before it is measured. `python benchmarks/collector.py` prints it for one load.
COST: Final = "allocations take up to ten times as long while it runs, and each live one some 50 to 100 bytes more"


@dataclass(frozen=True, slots=True)
class TracedLine:
    """What one line of source allocated during a trace and had not freed at its end.

    Attributes:
        place: File and line.
        size_bytes: Bytes.
        count: Blocks.
    """

    place: str
    size_bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Where memory went during a trace.

    Attributes:
        seconds: How long it ran.
        lines: The lines that kept most, the largest first.
        overhead_bytes: What the trace itself held at its end.
        snapshot_seconds: How long reading it stopped the process.
        cost: What it costs, in words.
    """

    seconds: float
    lines: tuple[TracedLine, ...]
    overhead_bytes: int
    snapshot_seconds: float
    cost: str = COST


async def trace_lines(seconds: float, most: int) -> Trace:
    """Trace allocations for some time; cancelling stops the trace.

    Raises:
        UsageError: A trace runs already.
    """
    if tracemalloc.is_tracing():
        raise UsageError("tracemalloc runs already. Wait for the other trace, or stop it with tracemalloc.stop().")
    tracemalloc.start(1)
    try:
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        ran = time.perf_counter() - began
        overhead = tracemalloc.get_tracemalloc_memory()
        began = time.perf_counter()
        snapshot = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=False, filename_pattern=tracemalloc.__file__)]
        )
        found = snapshot.statistics("lineno")[:most]
    finally:
        tracemalloc.stop()
    lines = tuple(TracedLine(str(one.traceback[0]), one.size, one.count) for one in found)
    return Trace(ran, lines, overhead, time.perf_counter() - began)
