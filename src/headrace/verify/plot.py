"""Plots as SVG, without a library: a page that shows them needs nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH: Final = 720
HEIGHT: Final = 220
LEFT: Final = 64
RIGHT: Final = 12
TOP: Final = 28
BOTTOM: Final = 30
#: Told apart also by those who see no red or green (Okabe and Ito, 2008).
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
#: Most points of one line.
POINTS: Final = 600


def plot_lines(
    title: str, lines: Mapping[str, Sequence[tuple[float, float]]], *, unit: str, limit: float | None = None
) -> str:
    """Draw lines over seconds.

    Args:
        title: Stands above.
        lines: Points by the name of the line.
        unit: Of the values.
        limit: A value that is marked with a dashed line.

    Example:
        >>> plot_lines("Memory", {"worker": [(0.0, 1.0), (1.0, 2.0)]}, unit="MB").startswith("<svg")
        True
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    right = max(at for at, _ in points) or 1.0
    top = max([value for _, value in points] + ([limit] if limit is not None else [])) * 1.08 or 1.0

    def place(at: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * at / right
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        value = top / 1.08 * share
        x, y = place(0.0, value).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" class="tick end">{value:,.4g} {escape(unit)}</text>')
    for share in (0.0, 0.5, 1.0):
        x = place(right * share, 0.0).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - 10}" class="tick middle">{right * share:,.4g} s</text>')
    if limit is not None:
        (x, y) = place(0.0, limit).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" class="limit"/>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        thinned = line[:: 1 + len(line) // POINTS]
        path = " ".join(place(at, value) for at, value in thinned)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        start = WIDTH - RIGHT - 170 * (len(lines) - number)
        parts.append(f'<text x="{start}" y="18" class="tick" fill="{colour}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])
