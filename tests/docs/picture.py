"""Draw docs/images/states.svg: the transitions of a job as boxes and arrows, each arrow with the scripts that make it.

Where a box stands and which way an arrow takes is laid out by hand; what is drawn comes from states.py. A pair of
statuses that has no way yet is an error, and so is a way for which there is no transition.
"""

from __future__ import annotations

import textwrap
from typing import Final

from tests.docs.states import NOWHERE, TRANSITIONS

#: Left out, since it would cover the picture with arrows.
NOT_DRAWN: Final = {"clear"}

WIDTH: Final = 1000
HEIGHT: Final = 400
HALF: Final = (58, 21)
#: Characters of a line of words beside an arrow.
LINE: Final = 26

#: Middle of the box of each status.
BOXES: Final = {
    "waiting": (270, 150), "delayed": (270, 300), "active": (570, 150),
    "completed": (880, 80), "failed": (880, 190), "cancelled": (880, 300),
}  # fmt: skip

#: Points of each arrow; where its words start, and which of their sides is there.
WAYS: Final = {
    (NOWHERE, "waiting"): ("40,150 212,150", (48, 141), "start"),
    (NOWHERE, "delayed"): ("40,300 212,300", (48, 291), "start"),
    ("delayed", "waiting"): ("270,279 270,171", (279, 228), "start"),
    ("delayed", "cancelled"): ("328,308 822,308", (520, 300), "middle"),
    ("waiting", "active"): ("328,140 512,140", (420, 131), "middle"),
    ("waiting", "cancelled"): ("212,162 196,162 196,376 850,376 850,321", (520, 368), "middle"),
    ("active", "completed"): ("628,138 822,86", (700, 96), "end"),
    ("active", NOWHERE): ("560,129 560,90", (552, 107), "end"),
    ("active", "delayed"): ("545,171 328,288", (452, 240), "start"),
    ("active", "waiting"): ("512,160 328,160", (420, 178), "middle"),
    ("active", "failed"): ("628,154 822,186", (702, 156), "start"),
    ("active", "cancelled"): ("612,171 822,288", (748, 262), "end"),
    ("failed", "waiting"): ("938,190 968,190 968,32 270,32 270,129", (420, 24), "middle"),
    ("cancelled", "waiting"): ("938,300 968,300 968,32 270,32 270,129", (420, 24), "middle"),
    ("completed", NOWHERE): ("900,101 900,128", (909, 121), "start"),
    ("failed", NOWHERE): ("900,211 900,238", (909, 231), "start"),
    ("cancelled", NOWHERE): ("900,321 900,348", (909, 341), "start"),
}

_HEAD: Final = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">
  <title id="title">The states of a job, and the scripts that lead from one to the next</title>
  <style>
    svg {{ font: 13px system-ui, "Segoe UI", "Noto Sans", Arial, sans-serif; }}
    .card {{ fill: #ffffff; stroke: #d8dce3; }}
    .box {{ fill: #eef2f8; stroke: #8a97ab; }}
    .way {{ fill: none; stroke: #5b6b82; stroke-width: 1.3; }}
    .head, .dot {{ fill: #5b6b82; }}
    .ring {{ fill: none; stroke: #5b6b82; stroke-width: 1.3; }}
    .status {{ fill: #1c2430; font-size: 14px; font-weight: 600; text-anchor: middle; }}
    .script {{ fill: #3d4a5e; }}
    @media (prefers-color-scheme: dark) {{
      .card {{ fill: #12151c; stroke: #2b3240; }}
      .box {{ fill: #1e2533; stroke: #5d6b82; }}
      .way, .ring {{ stroke: #93a1b8; }}
      .head, .dot {{ fill: #93a1b8; }}
      .status {{ fill: #eef2f8; }}
      .script {{ fill: #b9c4d6; }}
    }}
  </style>
  <defs>
    <marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
      <path class="head" d="M0,0 L8,4 L0,8 z"/>
    </marker>
  </defs>
  <rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>
"""


def arrows() -> dict[tuple[str, str], list[str]]:
    """Name the scripts of each pair of statuses that the picture shows."""
    found: dict[tuple[str, str], list[str]] = {}
    for each in TRANSITIONS:
        if each.script not in NOT_DRAWN:
            words = found.setdefault((each.source, each.target), [])
            words += [each.script] if each.script not in words else []
    return found


def draw() -> str:
    """Draw the picture.

    Raises:
        KeyError: A pair of statuses has no way in `WAYS`.
    """
    parts = [_HEAD]
    for pair, scripts in arrows().items():
        points, (x, y), side = WAYS[pair]
        parts.append(f'  <polyline class="way" points="{points}" marker-end="url(#head)"/>\n')
        parts.append(_words(x, y, side, ", ".join(scripts)))
        start, end = points.split()[0].split(","), points.split()[-1].split(",")
        if pair[0] == NOWHERE:
            parts.append(f'  <circle class="dot" cx="{start[0]}" cy="{start[1]}" r="5"/>\n')
        if pair[1] == NOWHERE:
            below = int(end[1]) > int(start[1])
            parts.append(f'  <circle class="ring" cx="{end[0]}" cy="{int(end[1]) + (6 if below else -6)}" r="5"/>\n')
    wide, high = HALF
    for status, (x, y) in BOXES.items():
        size = f'x="{x - wide}" y="{y - high}" width="{2 * wide}" height="{2 * high}"'
        parts.append(f'  <rect class="box" {size} rx="6"/>\n')
        parts.append(f'  <text class="status" x="{x}" y="{y + 5}">{status}</text>\n')
    return "".join([*parts, "</svg>\n"])


def _words(x: int, y: int, side: str, text: str) -> str:
    lines = textwrap.wrap(text, LINE)
    spans = "".join(f'<tspan x="{x}" dy="{16 if number else 0}">{line}</tspan>' for number, line in enumerate(lines))
    return f'  <text class="script" x="{x}" y="{y}" text-anchor="{side}">{spans}</text>\n'
