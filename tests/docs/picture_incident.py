"""Draw docs/images/incident.svg: how one thing led to the next. The page's text is its source, and is kept by hand."""

from __future__ import annotations

from typing import Final

from tests.docs.drawing import box, drawing, way, words

#: Lines of each box, its middle and its width.
BOXES: Final = (
    (("a timer a slot polls every 100 ms,", "two instances in one process"), (200, 60), 260),
    (("a request holds a connection", "from its begin to its end"), (520, 60), 230),
    (("every sample and", "listener is kept"), (860, 140), 160),
    (("a pool of 20",), (360, 180), 130),
    (("32 in use of 20",), (160, 300), 150),
    (("282 wait",), (490, 300), 110),
    (("memory at 89-92 %",), (860, 300), 170),
    (("more connections,", "no more throughput"), (160, 430), 180),
    (("the health check waits too:", "latency 1,540-2,716 ms"), (430, 430), 220),
    (("forced collection: nothing is", "garbage, the loop stands still"), (820, 430), 240),
    (("another tuning step",), (430, 550), 180),
)

#: Points of each arrow, its words and where they are.
WAYS: Final = (
    ("240,89 330,159", ("each poll takes", "a connection"), (268, 124), "end"),
    ("480,89 400,159", (), (0, 0), "start"),
    ("310,201 195,279", ("looks at its size,", "awaits, counts"), (228, 234), "end"),
    ("395,201 465,279", ("first in, first out,", "one line for all"), (456, 234), "start"),
    ("160,321 160,401", (), (0, 0), "start"),
    ("475,321 447,401", (), (0, 0), "start"),
    ("545,300 775,300", ("waiting requests are held",), (660, 291), "middle"),
    ("860,169 860,279", (), (0, 0), "start"),
    ("850,321 835,401", ("every 30 s",), (854, 366), "start"),
    ("720,401 545,312", (), (0, 0), "start"),
    ("430,459 430,529", ("\u201cRedis is slow\u201d",), (440, 499), "start"),
    ("520,542 570,542 570,562 520,562", ("no before and after",), (582, 557), "start"),
)


def draw() -> str:
    """Draw the picture."""
    parts = [way(points) for points, *_ in WAYS]
    parts += [words(lines, at, side) for _, lines, at, side in WAYS if lines]
    parts += [box(lines, at, width) for lines, at, width in BOXES]
    return drawing("How one thing led to the next in the incident", 1000, 600, parts)
