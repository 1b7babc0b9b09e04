"""Figures as rows and pictures: one run, or two of them. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from headrace.bench.report import is_beyond
from headrace.verify.plot import Bar, draw_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.bench.report import Change, Figure

COLUMNS: Final = ("figure", "unit", "median", "lowest", "highest", "spread")
CHANGE_COLUMNS: Final = ("figure", "unit", "before", "now", "change", "verdict")


def figure_rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Return a row a figure: median, extremes, and their distance in percent of the median."""
    return [
        (one.name, one.unit, *map(write_number, (one.middle, one.low, one.high)), f"{one.spread_percent:.0f} %")
        for one in figures
    ]


def change_rows(changes: Sequence[Change], gate: float | None) -> list[tuple[str, ...]]:
    """Return a row a figure of two runs.

    Args:
        changes: The figures.
        gate: Percent by which one may be worse; None for no gate.
    """
    return [
        (
            one.name,
            one.unit,
            "-" if one.before is None else write_number(one.before),
            "-" if one.after is None else write_number(one.after),
            "-" if one.worse_percent is None else write_percent(one.worse_percent),
            judge(one, gate),
        )
        for one in changes
    ]


def judge(change: Change, gate: float | None) -> str:
    """Say in a word what a change is.

    Example:
        >>> from headrace.bench.report import Change
        >>> judge(Change("drain", "jobs/s", 100.0, 85.0, 15.0, noise=False), 10.0)
        'BEYOND THE GATE'
        >>> judge(Change("drain", "jobs/s", 100.0, 98.0, 2.0, noise=True), 10.0)
        'noise'
    """
    if change.after is None:
        return "not taken"
    if change.worse_percent is None:
        return "new"
    if gate is not None and is_beyond(change, gate):
        return "BEYOND THE GATE"
    if change.noise or change.coarse:
        return "noise"
    return "worse" if change.worse_percent > 0 else "better"


def draw_figures(figures: Sequence[Figure]) -> dict[str, str]:
    """Return a picture for each unit, by file name."""
    units = dict.fromkeys(figure.unit for figure in figures)
    pictures = {}
    for unit in units:
        bars = [Bar(one.name, one.middle, one.low, one.high) for one in figures if one.unit == unit]
        name = "".join(letter if letter.isalnum() else "-" for letter in unit).strip("-")
        pictures[f"bench-{name}.svg"] = draw_bars(f"Medians and extremes, {unit}", bars, up=unit)
    return pictures


def write_number(value: float) -> str:
    """Write a figure with three digits that count.

    Example:
        >>> [write_number(value) for value in (123456.7, 12.345, 0.012345, 0.0)]
        ['123,457', '12.3', '0.0123', '0']
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits before the point


def write_percent(worse: float) -> str:
    """Write by how much a figure is worse or better.

    Example:
        >>> write_percent(12.34), write_percent(-3.0)
        ('12.3 % worse', '3.0 % better')
        >>> write_percent(float("inf")), write_percent(0.0)
        ('was 0', 'same')
    """
    if not worse:
        return "same"
    if math.isinf(worse):
        return "was 0"
    return f"{abs(worse):.1f} % {'worse' if worse > 0 else 'better'}"
