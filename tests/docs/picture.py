"""Draw docs/images/states.svg: the transitions of a job as boxes and arrows, each arrow with the scripts that make it.

Where a box stands and which way an arrow takes is laid out by hand; what is drawn comes from states.py. A pair of
statuses that has no way yet is an error, and so is a way for which there is no transition.
"""

from __future__ import annotations

import textwrap
from typing import Final

from tests.docs.drawing import box, circle, drawing, way, words
from tests.docs.states import NOWHERE, TRANSITIONS

#: Left out, since it would cover the picture with arrows.
NOT_DRAWN: Final = {"clear"}

#: Letters of a line of words beside an arrow.
LETTERS: Final = 26

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
    parts: list[str] = []
    for pair, scripts in arrows().items():
        points, at, side = WAYS[pair]
        parts += [way(points), words(textwrap.wrap(", ".join(scripts), LETTERS), at, side)]
        (start_x, start_y), *_, (end_x, end_y) = (tuple(map(int, point.split(","))) for point in points.split())
        if pair[0] == NOWHERE:
            parts.append(circle("dot", start_x, start_y))
        if pair[1] == NOWHERE:
            parts.append(circle("ring", end_x, end_y + (6 if end_y > start_y else -6)))
    parts += [box([status], at, 116) for status, at in BOXES.items()]
    return drawing("The states of a job, and the scripts that lead from one to the next", 1000, 400, parts)
