"""One figure of the table: of one run, or the median and extremes of several. Pure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Cell(msgspec.Struct, frozen=True):
    """One figure.

    Attributes:
        value: The figure; of several runs their median.
        digits: Digits after the point.
        most: The highest single look, where there were many.
        note: What stands after it.
        extremes: Lowest and highest of several runs.
    """

    value: float
    digits: int = 0
    most: float | None = None
    note: str = ""
    extremes: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Write it.

        Example:
            >>> str(Cell(250.0, most=264.0)), str(Cell(37.0, note=" of 20")), str(Cell(1.0, 1, note=" (-83 %)"))
            ('250 (most 264)', '37 of 20', '1.0 (-83 %)')
            >>> str(Cell(1757.0, 1, most=1832.0, extremes=(1600.0, 1790.25)))
            '1,757.0 (1,600.0-1,790.2, most 1,832)'
        """
        beside = []
        if self.extremes is not None:
            beside.append("-".join(f"{value:,.{self.digits}f}" for value in self.extremes))
        if self.most is not None:
            beside.append(f"most {self.most:,.0f}")
        shown = f" ({', '.join(beside)})" if beside else ""
        return f"{self.value:,.{self.digits}f}{shown}{self.note}"


def merge_cells(runs: Sequence[Cell]) -> Cell:
    """Return the median and extremes of some runs; the note is that of the run in the middle.

    Example:
        >>> str(merge_cells([Cell(54.0), Cell(60.0), Cell(55.0)])), str(merge_cells([Cell(54.0)]))
        ('55 (54-60)', '54')
    """
    if len(runs) == 1:
        return runs[0]
    values = [run.value for run in runs]
    middle = sorted(runs, key=lambda run: run.value)[len(runs) // 2]
    mosts = [run.most for run in runs if run.most is not None]
    return Cell(
        statistics.median(values),
        middle.digits,
        max(mosts) if mosts else None,
        middle.note,
        (min(values), max(values)),
    )


def merge_verdicts(runs: Sequence[bool | None]) -> tuple[bool | None, str]:
    """Return whether it is so in every run, and in how many of several it is, if not in all or none.

    Example:
        >>> merge_verdicts([True, True]), merge_verdicts([True, False, True]), merge_verdicts([None])
        ((True, ''), (False, '2 of 3'), (None, ''))
    """
    told = [run for run in runs if run is not None]
    if not told:
        return None, ""
    yes = sum(told)
    return all(told), f"{yes} of {len(told)}" if 0 < yes < len(told) else ""
