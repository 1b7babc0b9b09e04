"""The tables of peers.py, and the two documents that quote them: README.md and benchmarks/README.md.

It prints nothing and measures nothing; `python benchmarks/peers.py --write` calls it.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from headrace.bench.facts import count_cores
from headrace.bench.marks import check_marks, fill_marks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[1]
#: The documents, and the names of their marks.
FRONT: Final = ROOT / "README.md", "figures"
TABLES: Final = ROOT / "benchmarks" / "README.md", "last run"
IDEAL_SLEEPS_PER_SECOND: Final = 10_000
# Measure -> title of its table, and what it counts.
TITLES: Final = {
    "drain": ("no-op drain", "jobs/s"),
    "bulk": ("bulk enqueue", "jobs/s"),
    "single": ("single awaited enqueue", "jobs/s"),
    "sleep": ("10 ms sleep, 100 at a time", "jobs/s"),
    "cpu": ("processor time of the worker per no-op job", "us"),
    "server_cpu": ("processor time of the server per no-op job", "us"),
    "memory": ("server memory per waiting job", "bytes"),
}
LESS_IS_BETTER: Final = {"cpu", "server_cpu", "memory"}
# Measure -> its row on the front page.
FRONT_ROWS: Final = {
    "drain": "no-op jobs a second",
    "bulk": "bulk enqueue, jobs a second",
    "single": "single awaited enqueue, jobs a second",
    "sleep": f"10 ms sleep, 100 at a time, jobs a second (ideal: {IDEAL_SLEEPS_PER_SECOND:,})",
    "memory": "server memory a waiting job, bytes",
}


class Measured(Protocol):
    """What is known of one subject after the run."""

    name: str
    figures: dict[str, list[float]]
    errors: dict[str, str]

    @property
    def ours(self) -> bool:
        """Whether this is Headrace or a floor, and so no peer."""
        ...

    def error_of(self, measure: str) -> str:
        """Return why a measure failed, or nothing."""
        ...


def medians(measure: str, subjects: Sequence[Measured]) -> dict[str, float]:
    """Return the median of each subject that was measured, by name."""
    return {one.name: statistics.median(one.figures[measure]) for one in subjects if one.figures.get(measure)}


def best_peer(measure: str, subjects: Sequence[Measured]) -> tuple[str, float] | None:
    """Return the peer with the best median, and it."""
    found = medians(measure, [one for one in subjects if not one.ours])
    choose = min if measure in LESS_IS_BETTER else max
    return choose(found.items(), key=lambda item: item[1]) if found else None


def table(measure: str, subjects: Sequence[Measured]) -> Iterator[str]:
    """Make the lines of the table of one measure, the best median first, failures last."""
    title, unit = TITLES[measure]
    middles, best = medians(measure, subjects), best_peer(measure, subjects)
    less = measure in LESS_IS_BETTER
    rows = [[title, unit, "min - max", "to the best peer"]]
    for subject in sorted(subjects, key=lambda one: middles.get(one.name, 0.0), reverse=not less):
        if figures := subject.figures.get(measure):
            middle = middles[subject.name]
            ratio = f"{middle / best[1]:.2f}" if best else ""
            rows.append([subject.name, f"{middle:,.0f}", f"{min(figures):,.0f} - {max(figures):,.0f}", ratio])
    rows += [[subject.name, "failed", "see below", ""] for subject in subjects if subject.error_of(measure)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in [rows[0], rule, *rows[1:]]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield f"| {' | '.join(cells)} |"
    if measure == "sleep":
        yield ""
        yield f"The ideal of {title} is {IDEAL_SLEEPS_PER_SECOND:,} jobs/s."


def failures(subjects: Sequence[Measured]) -> Iterator[str]:
    """Make the lines that tell what failed, each error of a subject once."""
    for subject in subjects:
        for error in dict.fromkeys(subject.errors.values()):
            measures = [TITLES[measure][0] for measure in TITLES if subject.error_of(measure) == error]
            yield f"{subject.name} failed ({'all' if len(measures) == len(TITLES) else ', '.join(measures)}): {error}"


def all_tables(subjects: Sequence[Measured]) -> str:
    """Return the tables of all measures, and what failed."""
    parts = ["\n".join(table(measure, subjects)) for measure in TITLES]
    return "\n\n".join([*parts, *failures(subjects)])


def front_table(subjects: Sequence[Measured]) -> str:
    """Return the table of the front page: Headrace, the floors, and the fastest peer of each measure."""
    peers = [one.name for one in subjects if not one.ours and one.figures]
    head = [
        f"one worker process, {count_cores()} cores",
        "Headrace",
        "bare script, no queue",
        f"best of {len(peers)} peers",
    ]
    lines = [f"| {' | '.join(head)} |", "| --- | ---: | ---: | ---: |"]
    for measure, title in FRONT_ROWS.items():
        middles, best = medians(measure, subjects), best_peer(measure, subjects)
        floors = [
            f"{middles[name]:,.0f} ({name.removeprefix('floor-')})"
            for name in ("floor-hiredis", "floor-redis-py")
            if name in middles
        ]
        cells = [
            f"{middles['headrace']:,.0f}" if "headrace" in middles else "failed",
            ", ".join(floors) or "failed",
            f"{best[1]:,.0f} ({best[0]})" if best else "failed",
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def check_pages() -> None:
    """Make sure that both documents can be written, before a long run.

    Raises:
        OptionError: One of them lacks its marks.
    """
    for path, name in (FRONT, TABLES):
        check_marks(path, name)


def write_pages(head: str, subjects: Sequence[Measured], circumstances: Mapping[str, str], repeats: int) -> None:
    """Put the figures of a run into both documents.

    Args:
        head: What the figures depend on, as it was printed.
        subjects: What was measured.
        circumstances: The same by name.
        repeats: How often each was measured.
    """
    peers = [one.name for one in subjects if not one.ours and one.figures]
    told = (
        f"Medians of {repeats} in one run of `{circumstances['command']}` on\n"
        f"{circumstances['machine']}, over {', '.join(peers)};\n"
        "[here](benchmarks/README.md#last-run) is the spread. A single enqueue of dramatiq, RQ, Celery, huey and\n"
        "the bare scripts blocks its thread; the others await it."
    )
    fill_marks(*FRONT, "\n\n".join([front_table(subjects), told, *failures(subjects)]))
    fill_marks(*TABLES, f"```\n{head}\n```\n\n{all_tables(subjects)}")
