"""Before and after: the figures of two reports side by side, and which of them changed by more than they vary anyway.

How much a figure varies is measured where a run measures it several times: throughput and latency. The noise of both
runs adds up. Otherwise it is a tenth of a figure, of a time half, of a maximum all of it, since one event makes it; and
never less than what the figure can tell apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from headrace.verify.outcome import Outcome
    from headrace.verify.report import Report

#: Noise of a figure that was measured once, of a time, and of a maximum.
SHARE: Final = 0.10
SHARE_OF_TIMES: Final = 0.5
SHARE_OF_MAXIMA: Final = 1.0
MAXIMA: Final = ("longest_seconds", "lag_longest_seconds", "lag_p99_seconds", "waiting_most")
#: What a figure can tell apart at best, by its name or the last word of it.
RESOLUTION: Final = {
    "recovered_seconds": 0.1, "lag_longest_seconds": 0.05, "lag_p99_seconds": 0.05, "pause_seconds": 0.1,
    "seconds": 0.005, "bytes": 1_048_576.0, "rate": 0.001,
    "share": 0.01, "job": 0.25, "second": 0.05,
}  # fmt: skip
#: Figures that are better when they are larger.
MORE_IS_BETTER: Final = ("jobs_per_second", "idle", "back_bytes")
#: Figures that are neither good nor bad.
NEUTRAL: Final = (
    "floor_per_second", "maximum", "minimum", "accepted", "made_bytes", "maxclients", "begun_twice", "places", "need",
    "active", "alive",
)  # fmt: skip
#: A machine whose round trips changed by more than this share was busy with something else in one of the runs.
BUSY: Final = 0.3


class Change(msgspec.Struct, frozen=True):
    """One figure before and after.

    Attributes:
        check: The check that it belongs to.
        figure: Its name, with its unit as the last word.
        before: Its value before; None where there was none.
        after: Its value after.
        noise: By how much it varies anyway.
        verdict: `better`, `worse`, `changed`, `same` within the noise, or `new` and `gone`.
    """

    check: str
    figure: str
    before: float | None
    after: float | None
    noise: float
    verdict: str

    @property
    def text(self) -> str:
        """The change in words: a percentage where there is something to compare with."""
        if self.before is None or self.after is None:
            return "-"
        if not self.before:
            return f"{self.after - self.before:+.4g}"
        return f"{(self.after - self.before) / abs(self.before):+.0%}"


class Grades(msgspec.Struct, frozen=True):
    """One check whose grade changed."""

    check: str
    before: str
    after: str


class Comparison(msgspec.Struct, frozen=True):
    """Two reports side by side.

    Attributes:
        changes: All figures that either of them has.
        grades: Checks whose grade changed.
        notes: What makes the two hard to compare.
    """

    changes: list[Change]
    grades: list[Grades]
    notes: list[str]


def compare(before: Report, after: Report) -> Comparison:
    """Compare two reports, figure by figure."""
    ours, theirs = _by_name(before), _by_name(after)
    changes: list[Change] = []
    grades: list[Grades] = []
    for name in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(name), theirs.get(name)
        figures = {**(one.figures if one else {}), **(other.figures if other else {})}
        changes += [compare_figure(name, figure, one, other) for figure in figures]
        grade, later = (str(each.grade) if each else "-" for each in (one, other))
        if grade != later:
            grades.append(Grades(name, grade, later))
    return Comparison(changes, grades, [*_notes(before, after), *_busy(before, after)])


def compare_figure(check: str, figure: str, before: Outcome | None, after: Outcome | None) -> Change:
    """Compare one figure of one check."""
    old = before.figures.get(figure) if before else None
    new = after.figures.get(figure) if after else None
    if old is None or new is None:
        return Change(check, figure, old, new, 0.0, "new" if old is None else "gone")
    known = [each.noise[figure] for each in (before, after) if each is not None and figure in each.noise]
    size = max(abs(old), abs(new))
    if figure in MAXIMA:
        band = SHARE_OF_MAXIMA * size
    elif known:
        band = max(sum(known), SHARE * size)
    else:
        band = (SHARE_OF_TIMES if figure.endswith("seconds") else SHARE) * size
    band = max(band, RESOLUTION.get(figure) or RESOLUTION.get(figure.rsplit("_", 1)[-1], 1.0))
    return Change(check, figure, old, new, band, _verdict(figure, old, new, band))


def _verdict(figure: str, old: float, new: float, band: float) -> str:
    """Say what a change means.

    Example:
        >>> _verdict("jobs_per_second", 100.0, 200.0, 20.0), _verdict("p99_seconds", 0.1, 0.2, 0.01)
        ('better', 'worse')
        >>> _verdict("timers", 3.0, 3.0, 1.0), _verdict("maximum", 20.0, 100.0, 10.0)
        ('same', 'changed')
    """
    if abs(new - old) <= band:
        return "same"
    if figure in NEUTRAL:
        return "changed"
    return "better" if (new > old) == (figure in MORE_IS_BETTER) else "worse"


def _by_name(report: Report) -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in report.outcomes}


def _notes(before: Report, after: Report) -> list[str]:
    """Say what else differs between the two runs."""
    pairs: list[tuple[str, Any, Any]] = [
        ("course", before.course, after.course),
        ("server", before.server, after.server),
    ]
    pairs += [(name, before.versions.get(name), after.versions.get(name)) for name in ("python", "headrace", "redis")]
    pairs += [
        (name, before.machine.get(name), after.machine.get(name)) for name in ("processors_allowed", "memory_bytes")
    ]
    notes = [f"{name}: {old} before, {new} after" for name, old, new in pairs if old != new]
    ours = {row["name"]: row["value"] for row in before.settings}
    notes += [
        f"{row['name']}: {ours[row['name']]} before, {row['value']} after"
        for row in after.settings
        if row["name"] in ours and ours[row["name"]] != row["value"]
    ]
    return notes


def _busy(before: Report, after: Report) -> list[str]:
    """Say that the machine or the way to the server was not equally fast in both runs."""
    old, new = before.load.roundtrips, after.load.roundtrips
    if not old or not new or abs(new - old) <= BUSY * max(old, new):
        return []
    return [f"round trips a second of one connection: {old:,.0f} before, {new:,.0f} after; it was not equally busy"]
