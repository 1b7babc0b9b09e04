"""Fold log lines that repeat: the first is printed, the rest is counted and reported once an interval.

Only lines of Headrace itself above DEBUG are folded; what a program logs is its own. Two lines are alike when logger,
level, phrase and fields are. A phrase whose fields differ each time is printed `VARIANTS` times an interval.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

#: Phrases that are counted at once; one more ends the interval of the oldest. About 1 MB at most, their fields aside.
MAX_PHRASES: Final = 500
#: Lines of one phrase with different fields that are printed in an interval.
VARIANTS: Final = 10

Key: TypeAlias = "tuple[str, int, object]"


@dataclass(slots=True)
class _Line:
    """One phrase since its interval began: what was printed, and what was only counted."""

    began: float
    seen: set[int] = field(default_factory=set)
    folded: int = 0
    last: logging.LogRecord | None = None


class Fold:
    """Decide which lines are printed.

    Args:
        interval: Seconds for which a line stands for those like it; 0 prints every line.
        fingerprint: Returns a text that two lines share only if all they say is the same.

    Attributes:
        folded_total: Lines that were only counted.
    """

    def __init__(self, interval: float, fingerprint: Callable[[logging.LogRecord], str]) -> None:
        self.interval = interval
        self.folded_total = 0
        self._fingerprint = fingerprint
        # In the order in which their intervals began, so that the first one is the first to end.
        self._lines: dict[Key, _Line] = {}

    def take(self, record: logging.LogRecord, now: float) -> bool:
        """Tell whether a line is to be printed, and count it if not.

        Args:
            record: The line.
            now: Time that only grows, seconds.
        """
        if not self.interval or record.levelno <= logging.DEBUG or record.name.partition(".")[0] != "headrace":
            return True
        key = (record.name, record.levelno, record.msg)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(now)
        mark = hash(self._fingerprint(record))
        if mark not in line.seen and len(line.seen) < VARIANTS:
            line.seen.add(mark)
            return True
        line.folded += 1
        self.folded_total += 1
        line.last = _without_trouble(record)
        return False

    def ended(self, now: float) -> list[logging.LogRecord]:
        """Return a line for each phrase whose interval has ended and that was folded: its last line, with the count."""
        reports: list[logging.LogRecord] = []
        while self._lines:
            key, line = next(iter(self._lines.items()))
            if now - line.began < self.interval and len(self._lines) <= MAX_PHRASES:
                break
            del self._lines[key]
            if line.last is not None:
                reports.append(_report(line.last, line.folded))
        return reports

    def due(self) -> float | None:
        """Return when the first report is due, in the time of `take`; None when nothing was folded."""
        began = [line.began for line in self._lines.values() if line.folded]
        return min(began) + self.interval if began else None


def _report(last: logging.LogRecord, folded: int) -> logging.LogRecord:
    report = copy.copy(last)
    vars(report)["repeated"] = folded
    return report


def _without_trouble(record: logging.LogRecord) -> logging.LogRecord:
    """Return what a report needs of a line; its exception would keep every frame alive, with all that they hold."""
    if record.exc_info is None and record.stack_info is None:
        return record
    kept = copy.copy(record)
    kept.exc_info = kept.exc_text = kept.stack_info = None
    return kept
