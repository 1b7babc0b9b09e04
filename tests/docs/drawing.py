"""Draw boxes and arrows as SVG, legible in a light and a dark page, with nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Height of a line of words.
LINE: Final = 16

_STYLE: Final = """\
  <style>
    svg { font: 13px system-ui, "Segoe UI", "Noto Sans", Arial, sans-serif; }
    .card { fill: #ffffff; stroke: #d8dce3; }
    .box { fill: #eef2f8; stroke: #8a97ab; }
    .way { fill: none; stroke: #5b6b82; stroke-width: 1.3; }
    .head, .dot { fill: #5b6b82; }
    .ring { fill: none; stroke: #5b6b82; stroke-width: 1.3; }
    .name { fill: #1c2430; font-weight: 600; }
    .word { fill: #3d4a5e; }
    @media (prefers-color-scheme: dark) {
      .card { fill: #12151c; stroke: #2b3240; }
      .box { fill: #1e2533; stroke: #5d6b82; }
      .way, .ring { stroke: #93a1b8; }
      .head, .dot { fill: #93a1b8; }
      .name { fill: #eef2f8; }
      .word { fill: #b9c4d6; }
    }
  </style>
  <defs>
    <marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
      <path class="head" d="M0,0 L8,4 L0,8 z"/>
    </marker>
  </defs>
"""


def drawing(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    """Put the parts of a picture on a card of their own, so that the page's colour does not matter."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">\n'
        f'  <title id="title">{escape(title)}</title>\n{_STYLE}'
        f'  <rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>\n'
        f"{''.join(parts)}</svg>\n"
    )


def way(points: str) -> str:
    """Draw an arrow along points: `60,140 194,140`."""
    return f'  <polyline class="way" points="{points}" marker-end="url(#head)"/>\n'


def circle(kind: str, x: int, y: int) -> str:
    """Draw a `dot` where something begins, or a `ring` where it ends."""
    return f'  <circle class="{kind}" cx="{x}" cy="{y}" r="5"/>\n'


def words(lines: Sequence[str], at: tuple[int, int], side: str = "middle", kind: str = "word") -> str:
    """Write lines; the point is where the first one has its `start`, `middle` or `end`."""
    x, y = at
    spans = "".join(
        f'<tspan x="{x}" y="{y + LINE * number}">{escape(line)}</tspan>' for number, line in enumerate(lines)
    )
    return f'  <text class="{kind}" text-anchor="{side}">{spans}</text>\n'


def box(lines: Sequence[str], at: tuple[int, int], width: int) -> str:
    """Draw a box around lines; the point is its middle."""
    x, y = at
    height = LINE * len(lines) + 26
    frame = f'x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}"'
    return f'  <rect class="box" {frame} rx="6"/>\n' + words(
        lines, (x, y + 5 - LINE * (len(lines) - 1) // 2), kind="name"
    )
