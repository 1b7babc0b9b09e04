"""What a run found: figures with all their values; two runs held against each other; the gate of a pipeline. Pure."""

from __future__ import annotations

import math
import re
import statistics
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA: Final = "headrace-bench-1"
Better: TypeAlias = Literal["more", "less"]


class Figure(msgspec.Struct, frozen=True):
    """One figure: its name, unit, whether more of it is better, and one value a repeat.

    `grain` is the step in which it is counted, such as one command in the time that was looked at.
    """

    name: str
    unit: str
    better: Better
    values: tuple[float, ...]
    grain: float = 0.0

    @property
    def middle(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest."""
        return max(self.values)

    @property
    def spread_percent(self) -> float:
        """The distance of the extremes, in percent of the median."""
        return 100 * (self.high - self.low) / self.middle if self.middle else 0.0


class Inputs(msgspec.Struct, frozen=True):
    """What went in.

    Attributes:
        seed: Seed of everything that was drawn.
        repeats: How often each figure was taken, beside a warm-up.
        scale: Part of the jobs of the full size.
        jobs: Workload -> how many.
        digests: Workload -> hash over its jobs.
    """

    seed: int
    repeats: int
    scale: float
    jobs: dict[str, int]
    digests: dict[str, str]


class BenchReport(msgspec.Struct, frozen=True):
    """One run: what it depends on, what went in, and what was found."""

    schema: str
    facts: dict[str, str]
    inputs: Inputs
    figures: tuple[Figure, ...]


class Change(msgspec.Struct, frozen=True):
    """One figure of two runs.

    Attributes:
        name: Its name.
        unit: Its unit.
        before: The earlier one, None when it was not taken.
        after: The later one, None when it was not taken.
        worse_percent: By how much the later median is worse; negative when it is better; infinite against one of 0.
        noise: Whether the extremes of the two overlap, so that their order means little.
        coarse: Whether they are no further apart than the steps in which the figure is counted.
    """

    name: str
    unit: str
    before: float | None
    after: float | None
    worse_percent: float | None
    noise: bool
    coarse: bool = False


def read_report(path: Path) -> BenchReport:
    """Read a report that `headrace bench --json` wrote.

    Raises:
        OptionError: There is no such file, or it is something else.
    """
    try:
        report = msgspec.json.decode(path.read_bytes(), type=BenchReport)
    except OSError as error:
        raise OptionError(
            f"{path} cannot be read: {error.strerror}. Write one with `headrace bench --json`."
        ) from error
    except msgspec.DecodeError as error:
        raise OptionError(f"{path} is no report of `headrace bench --json`: {error}. Write a new one.") from error
    if report.schema != SCHEMA:
        raise OptionError(f"{path} has the schema {report.schema}, expected {SCHEMA}. Take it anew with this version.")
    return report


def compare_figures(before: Sequence[Figure], after: Sequence[Figure]) -> list[Change]:
    """Hold the figures of two runs against each other, in the order of the later one.

    Example:
        >>> old, new = (Figure("drain", "jobs/s", "more", values) for values in ((90.0, 100.0), (70.0, 80.0)))
        >>> [(round(change.worse_percent, 1), change.noise) for change in compare_figures([old], [new])]
        [(21.1, False)]
    """
    known = {figure.name: figure for figure in before}
    changes = [_compare_one(known.pop(figure.name, None), figure) for figure in after]
    return [*changes, *(Change(left.name, left.unit, left.middle, None, None, noise=False) for left in known.values())]


def _compare_one(before: Figure | None, after: Figure) -> Change:
    if before is None:
        return Change(after.name, after.unit, None, after.middle, None, noise=False)
    worse = before.middle - after.middle if after.better == "more" else after.middle - before.middle
    percent = 100 * worse / before.middle if before.middle else math.copysign(math.inf, worse) if worse else 0.0
    noise = before.low <= after.high and after.low <= before.high
    # Why two steps: each of the two may be off by one.
    coarse = abs(worse) <= 2 * max(before.grain, after.grain) + 1e-9
    return Change(after.name, after.unit, before.middle, after.middle, percent, noise, coarse)


def check_gate(changes: Sequence[Change], percent: float) -> list[Change]:
    """Return the changes that are worse by more than so many percent, noise or not; a figure that is gone counts.

    What is no more than the steps in which the figure is counted does not: of 0 commands and 1 neither is worse.

    Example:
        >>> slower = Change("drain", "jobs/s", 100.0, 85.0, 15.0, noise=False)
        >>> len(check_gate([slower], 10.0)), len(check_gate([slower], 20.0))
        (1, 0)
    """
    return [change for change in changes if change.after is None or is_beyond(change, percent)]


def is_beyond(change: Change, percent: float) -> bool:
    """Whether a figure that was taken in both runs is worse by more than so many percent."""
    return change.worse_percent is not None and change.worse_percent > percent and not change.coarse


def parse_gate(text: str) -> float:
    """Return the percent of a gate.

    Raises:
        OptionError: It is no percent from 0 to 1000.

    Example:
        >>> parse_gate("10%"), parse_gate(" 2.5 ")
        (10.0, 2.5)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", text)
    if match is None or float(match[1]) > 1000:  # noqa: PLR2004 - stated in the sentence below
        raise OptionError(f"--gate {text}: expected a percent from 0 to 1000. Write --gate 10%.")
    return float(match[1])
