"""Draw figures as SVG: lines over time, and bars with their spread. Text and shapes only; no library, no script.

Each stands alone as a file; `embed` makes it a part of a page.

Why an own writer: two simple charts are 150 lines; matplotlib is 60 MB with what it needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 720
HEIGHT: Final = 260
LEFT: Final = 72
RIGHT: Final = 16
TOP: Final = 44
BOTTOM: Final = 36
#: Two colours that colour-blind people tell apart; then more. Source: M. Okabe, K. Ito, "Color Universal Design", 2008.
COLOURS: Final = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
#: At most so many points of a line are drawn; of more, the highest of each stretch.
POINTS: Final = 300
#: A picture that stands alone must name its language.
NAMESPACE: Final = ' xmlns="http://www.w3.org/2000/svg"'
#: Most room for the name of one line, beside the title.
KEY: Final = 150

_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#222}.t{font-size:14px;font-weight:600}.g{stroke:#ddd}"
    "@media(prefers-color-scheme:dark){text{fill:#eee}.g{stroke:#444}}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name, and points from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, the median, and the extremes."""

    name: str
    middle: float
    low: float
    high: float


def draw_lines(title: str, lines: Sequence[Line], *, across: str, up: str, mark: float | None = None) -> str:
    """Return a chart of lines.

    Args:
        title: What it shows.
        lines: At most as many as there are colours.
        across: Unit of the first coordinate.
        up: Unit of the second.
        mark: A value to draw a dashed line at.
    """
    xs = [x for line in lines for x, _ in line.points] or [0.0]
    ys = [y for line in lines for _, y in line.points] or [0.0]
    low, high = min(xs), max(*xs, min(xs) + 1e-9)
    ticks = nice_ticks(max(*ys, mark or 0.0, 1e-9))
    parts = [_grid(ticks), _text(LEFT, 18, title, "t")]
    key = min(KEY, (WIDTH - LEFT - RIGHT) / 2 / max(1, len(lines)))
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        shown = " ".join(
            f"{_across((x - low) / (high - low)):.1f},{_up(y / ticks[-1]):.1f}" for x, y in thin_out(line.points)
        )
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{shown}"/>')
        parts.append(_key(WIDTH - RIGHT - key * (index + 1), line.name, colour))
    if mark is not None:
        y = _up(mark / ticks[-1])
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#777" stroke-dasharray="5 4"/>')
    parts += [
        _text(LEFT, HEIGHT - 10, f"{low:,.4g} {across}"),
        _text(WIDTH - RIGHT, HEIGHT - 10, f"{high:,.4g}", "", "end"),
    ]
    parts.append(_text(LEFT - 8, TOP - 8, up, "", "end"))
    return _wrap(title, parts)


def draw_bars(title: str, bars: Sequence[Bar], *, up: str) -> str:
    """Return a chart of bars, each with its spread.

    Args:
        title: What it shows.
        bars: From left to right.
        up: Unit of the values.
    """
    ticks = nice_ticks(max([bar.high for bar in bars] + [1e-9]))
    parts = [_grid(ticks), _text(LEFT, 18, title, "t"), _text(LEFT - 8, TOP - 8, up, "", "end")]
    step = (WIDTH - LEFT - RIGHT) / max(1, len(bars))
    for index, bar in enumerate(bars):
        x = LEFT + step * (index + 0.5)
        top, width = _up(bar.middle / ticks[-1]), step * 0.6
        parts.append(
            f'<rect x="{x - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{HEIGHT - BOTTOM - top:.1f}" '
            f'fill="{COLOURS[1]}"/>'
        )
        parts.append(
            f'<path d="M{x:.1f} {_up(bar.low / ticks[-1]):.1f}V{_up(bar.high / ticks[-1]):.1f}" stroke="#777" '
            'stroke-width="2"/>'
        )
        parts.append(_text(x, HEIGHT - BOTTOM + 18, bar.name, "", "middle"))
    return _wrap(title, parts)


def embed(picture: str) -> str:
    """Return a picture as it stands inside of a page of HTML: without the address of its language.

    Example:
        >>> "http" in embed(draw_lines("Memory", [Line("worker", [(0.0, 1.0)])], across="s", up="MB"))
        False
    """
    return picture.replace(NAMESPACE, "", 1)


def nice_ticks(most: float) -> list[float]:
    """Return round values from 0 to at least `most`, at most six of them.

    Example:
        >>> nice_ticks(282.0)
        [0.0, 100.0, 200.0, 300.0]
        >>> nice_ticks(0.9)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    power = 10.0 ** math.floor(math.log10(most))
    step = next(factor * power for factor in (0.1, 0.2, 0.5, 1.0, 2.0) if most <= 5 * factor * power)
    return [round(step * index, 12) for index in range(math.ceil(most / step - 1e-9) + 1)]


def thin_out(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """Return at most `most` points: the highest of each stretch, so that a peak stays.

    Example:
        >>> thin_out([(0, 1), (1, 9), (2, 2), (3, 1)], 2)
        [(1, 9), (2, 2)]
    """
    size = max(1, math.ceil(len(points) / most))
    return [max(points[at : at + size], key=lambda point: point[1]) for at in range(0, len(points), size)]


def _across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _up(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _grid(ticks: Sequence[float]) -> str:
    parts = []
    for tick in ticks:
        y = _up(tick / ticks[-1])
        parts.append(f'<path class="g" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tick:,g}", "", "end"))
    return "".join(parts)


def _key(x: float, name: str, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="9" width="12" height="12" fill="{colour}"/>' + _text(x + 18, 19, name)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _wrap(title: str, parts: Sequence[str]) -> str:
    head = f'<svg{NAMESPACE} viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    label = f'role="img" aria-label="{escape(title)}"'
    return f"{head} {label}><style>{_STYLE}</style>{''.join(parts)}</svg>\n"
