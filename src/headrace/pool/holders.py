"""Who holds what: the place in the program that took a connection, and the text that an error makes of it."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import redis

from headrace.census import name_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, FrameType

#: Holders that an error or a log line lists; the rest are counted.
MOST_LISTED: Final = 5
#: Frames looked at to find the program's own; the frames of redis-py between are some five.
MOST_FRAMES: Final = 40
#: Code objects of which it is remembered whether they are the program's.
MOST_REMEMBERED: Final = 4_096

_LIBRARIES: Final = tuple(
    os.path.dirname(module) + os.sep  # noqa: PTH120 - code objects hold plain text
    for module in (redis.__file__, __file__, os.__file__.replace("os.py", "asyncio/x"))
    if module
)
_is_library: dict[CodeType, bool] = {}


@dataclass(frozen=True, slots=True)
class Holder:
    """One connection in use.

    Attributes:
        lane: Share that it counts against.
        owner: Who took it: a name given to the lane, else the name of the asyncio task or thread.
        purpose: What for, as given to the lane; empty when nothing was given.
        place: `file:line function` of the program that took it; empty when it is not known.
        held: Seconds since.
    """

    lane: str
    owner: str
    purpose: str
    place: str
    held: float

    def __str__(self) -> str:
        """Return one line: held 41.2 s by 'mail-3' (reserve) at worker.py:12 run."""
        purpose = f" ({self.purpose})" if self.purpose else ""
        place = f" at {self.place}" if self.place else ""
        return f"{self.held:.1f} s by '{self.owner}'{purpose}{place}"


def find_place() -> tuple[CodeType, int] | None:
    """Return code and line of the nearest caller that belongs neither to redis-py, to the pool nor to asyncio.

    Measured: benchmarks/pool_acquire.py prints what acquire and release cost with it.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to look at callers
    known = _is_library
    for _ in range(MOST_FRAMES):
        if frame is None:
            return None
        code = frame.f_code
        library = known.get(code)
        if library is None:
            if len(known) >= MOST_REMEMBERED:
                known.clear()
            library = known[code] = code.co_filename.startswith(_LIBRARIES)
        if not library:
            return code, frame.f_lineno
        frame = frame.f_back
    return None


def name_place(place: tuple[CodeType, int] | None) -> str:
    """Return `file:line function` of a place, with the last two parts of the path."""
    if place is None:
        return ""
    code, line = place
    return f"{name_line(code.co_filename, line)} {code.co_qualname}"


def name_owner(owner: object) -> str:
    """Return the name of an owner: a text, or an asyncio task."""
    return owner.get_name() if isinstance(owner, asyncio.Task) else str(owner or "unknown")


def tell_holders(holders: Sequence[Holder]) -> str:
    """Return the longest holders as one text: `longest held 41.2 s by ..., 12.0 s by ... and 7 more`."""
    if not holders:
        return "none is held; they are being opened"
    ordered = sorted(holders, key=lambda holder: holder.held, reverse=True)
    more = f" and {len(ordered) - MOST_LISTED} more" if len(ordered) > MOST_LISTED else ""
    return f"longest held {', '.join(str(holder) for holder in ordered[:MOST_LISTED])}{more}"
