"""What a check found, and the verdict over all of them: plain values that go into a report and out of it again."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Grade(StrEnum):
    """What one check found.

    `partial` works and should be better. `skipped` was not measured, says why, and changes no verdict.
    """

    PASS = "pass"  # noqa: S105 - a grade, not a password
    PARTIAL = "partial"
    FAIL = "fail"
    SKIPPED = "skipped"


class Verdict(StrEnum):
    """The end of a run; its place in the order is the exit code."""

    FULL = "full"
    PARTIAL = "partial"
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        """0 for full, 1 for partial, 2 for failed."""
        return list(Verdict).index(self)


#: From the best to the worst.
ORDER: Final = (Grade.SKIPPED, Grade.PASS, Grade.PARTIAL, Grade.FAIL)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One check.

    Attributes:
        name: What is checked.
        grade: What was found.
        measured: The figures, in words.
        threshold: What passes.
        source: Where the threshold comes from.
        evidence: How it was measured, and what else was seen.
        remedy: What to do; empty when there is nothing to do.
        figures: The figures as numbers, in base units, by name.
        noise: By how much some of them vary within one run.
    """

    name: str
    grade: Grade
    measured: str
    threshold: str
    source: str
    evidence: str = ""
    remedy: str = ""
    figures: dict[str, float] = {}
    noise: dict[str, float] = {}


def worst(grades: Iterable[Grade]) -> Grade:
    """Return the worst of some grades; skipped without any.

    Example:
        >>> worst([Grade.PASS, Grade.PARTIAL, Grade.SKIPPED]).value
        'partial'
    """
    return max(grades, key=ORDER.index, default=Grade.SKIPPED)


def conclude(outcomes: Iterable[Outcome]) -> Verdict:
    """Return the verdict: failed when a check failed, partial when one is partial or none was measured at all.

    Example:
        >>> conclude([]).value
        'partial'
    """
    grade = worst(outcome.grade for outcome in outcomes)
    if grade is Grade.FAIL:
        return Verdict.FAILED
    return Verdict.FULL if grade is Grade.PASS else Verdict.PARTIAL


def grade_low(value: float, good: float, fair: float) -> Grade:
    """Grade a figure that should be low: pass up to `good`, partial up to `fair`, else fail.

    Example:
        >>> [grade_low(value, 5, 9).value for value in (5, 6, 10)]
        ['pass', 'partial', 'fail']
    """
    if value <= good:
        return Grade.PASS
    return Grade.PARTIAL if value <= fair else Grade.FAIL


def grade_below(value: float, good: float, fair: float) -> Grade:
    """Grade as `grade_low`, where the bounds themselves do not pass any more.

    Example:
        >>> [grade_below(value, 0.1, 0.2).value for value in (0.099, 0.1, 0.2)]
        ['pass', 'partial', 'fail']
    """
    if value < good:
        return Grade.PASS
    return Grade.PARTIAL if value < fair else Grade.FAIL
