"""What a check is: a claim with a threshold, its source and a remedy, which evidence bears out or refutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from headrace.verify.outcome import Grade, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

E = TypeVar("E")

#: Where most thresholds come from.
GUIDE = "verification guide of the incident"
PROMISE = "docs/guarantees.md"
OWN = "chosen for this check; docs/decisions/0017"


class Claim(Generic[E]):
    """One check, which judges evidence and measures nothing itself.

    Attributes:
        name: What is claimed.
        threshold: What passes.
        source: Where that comes from.
        remedy: What to do when it does not pass.
    """

    name: ClassVar[str]
    threshold: ClassVar[str]
    source: ClassVar[str]
    remedy: ClassVar[str]

    def judge(self, evidence: E) -> Outcome:
        """Hold the evidence against the threshold.

        Args:
            evidence: What was measured.
        """
        raise NotImplementedError

    def found(
        self,
        grade: Grade,
        measured: str,
        evidence: str = "",
        *,
        remedy: str = "",
        threshold: str = "",
        figures: Mapping[str, float] | None = None,
        noise: Mapping[str, float] | None = None,
    ) -> Outcome:
        """Return the outcome; a remedy and a threshold given here stand for those of the class."""
        return Outcome(
            name=self.name,
            grade=grade,
            measured=measured,
            threshold=threshold or self.threshold,
            source=self.source,
            evidence=evidence,
            remedy="" if grade is Grade.PASS else remedy or self.remedy,
            figures=dict(figures or {}),
            noise=dict(noise or {}),
        )

    def skipped(self, reason: str) -> Outcome:
        """Return the outcome of a claim that was not measured, and why."""
        return self.found(Grade.SKIPPED, "not measured", reason, remedy=" ")


def spread(values: Sequence[float]) -> float:
    """Return half the distance between the least and the largest of some values; 0 without any.

    Example:
        >>> spread([90.0, 100.0, 130.0]), spread([])
        (20.0, 0.0)
    """
    return (max(values) - min(values)) / 2 if values else 0.0


def milliseconds(seconds: float) -> str:
    """Write a time for people.

    Example:
        >>> milliseconds(0.000042), milliseconds(0.0123), milliseconds(1.5)
        ('0.042 ms', '12.3 ms', '1500 ms')
    """
    if 0 < seconds < 0.001:  # noqa: PLR2004 - as below
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"  # noqa: PLR2004 - three digits


def megabytes(count: float) -> str:
    """Write a number of bytes for people.

    Example:
        >>> megabytes(3 * 2**20)
        '3.0 MB'
    """
    return f"{count / 2**20:.1f} MB"
