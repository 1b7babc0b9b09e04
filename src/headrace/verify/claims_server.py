"""Claims about settings and server that need no load: they are all of `headrace doctor`, and the start of `verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.health.verdict import CheckStatus
from headrace.settings_auto import AUTO
from headrace.verify.claim import GUIDE, OWN, Claim, milliseconds
from headrace.verify.outcome import Grade, Outcome, grade_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.health.verdict import Check
    from headrace.sizing.demand import Sizing

#: More clients than this the server must accept, or as many as the fleet needs.
MAXCLIENTS: Final = 200
#: Redis latency in seconds: under the first it passes, under the second it is partial.
LATENCY_GOOD: Final = 0.1
LATENCY_FAIR: Final = 0.2

GRADES: Final = {
    CheckStatus.OK: Grade.PASS,
    CheckStatus.WARN: Grade.PARTIAL,
    CheckStatus.BAD: Grade.FAIL,
    CheckStatus.UNKNOWN: Grade.PARTIAL,
}


@dataclass(frozen=True, slots=True)
class Stray:
    """A name or value that does not do what whoever set it may expect.

    Attributes:
        text: What it is.
        remedy: What to do.
        is_note: It may well be meant so, and changes no verdict.
    """

    text: str
    remedy: str
    is_note: bool = False


@dataclass(frozen=True, slots=True)
class Effective:
    """What was configured, and what a process really has.

    Attributes:
        maximum: REDIS_MAX_CONNECTIONS as configured: a number, or `auto`.
        minimum: REDIS_MIN_CONNECTIONS as configured.
        sources: Where the two come from.
        real_maximum: The maximum of the pool; None when no pool of that size was opened.
        real_minimum: Its minimum.
        strays: Variables that have no effect.
    """

    maximum: int | str
    minimum: int
    sources: tuple[str, str]
    real_maximum: int | None = None
    real_minimum: int | None = None
    strays: Sequence[Stray] = ()


class SettingsCount(Claim[Effective]):
    """Effective pool settings are what was configured."""

    name = "effective settings"
    threshold = "pool bounds as configured, and no variable without effect"
    source = f"{GUIDE}, check 1"
    remedy = (
        "`headrace pool size` says what the fleet leaves; raise maxclients, lower REDIS_MAX_CONNECTIONS, or set auto."
    )

    def judge(self, evidence: Effective) -> Outcome:
        """Hold the bounds of the pool against the settings."""
        configured = (
            f"REDIS_MAX_CONNECTIONS={evidence.maximum} ({evidence.sources[0]}), "
            f"REDIS_MIN_CONNECTIONS={evidence.minimum} ({evidence.sources[1]})"
        )
        grade, remedy, measured = Grade.PASS, self.remedy, configured
        figures: dict[str, float] = {}
        if evidence.real_maximum is not None and evidence.real_minimum is not None:
            measured += f"; the pool has {evidence.real_minimum} to {evidence.real_maximum}"
            figures = {"maximum": evidence.real_maximum, "minimum": evidence.real_minimum}
            same_maximum = evidence.maximum in (AUTO, evidence.real_maximum)
            same_minimum = evidence.real_minimum == evidence.minimum
            grade = Grade.PASS if same_maximum and same_minimum else Grade.FAIL
        wrong = [stray for stray in evidence.strays if not stray.is_note]
        if wrong:
            measured += "; " + "; ".join(stray.text for stray in wrong)
            if grade is Grade.PASS:
                remedy = " ".join(dict.fromkeys(stray.remedy for stray in wrong))
            grade = Grade.FAIL
        notes = [stray.text for stray in evidence.strays if stray.is_note]
        text = "; ".join(["settings read from all sources", *notes])
        return self.found(grade, measured, text, remedy=remedy, figures=figures)


class ServerCarriesFleet(Claim["Sizing"]):
    """The server accepts as many clients as the fleet needs."""

    name = "maxclients"
    threshold = f"over {MAXCLIENTS}, or what the fleet may open"
    source = f"{GUIDE}, check 1, and the sizing table (docs/sizing.md)"
    remedy = "Raise maxclients, lower REDIS_MAX_CONNECTIONS, or set it to auto."

    def judge(self, evidence: Sizing) -> Outcome:
        """Hold the maxima of all processes against the server's limit."""
        server, limits = evidence.server, evidence.limits
        if server.maxclients is None or limits is None:
            return self.found(Grade.PARTIAL, "the server does not tell its maxclients", remedy=evidence.advice)
        fleet = f"the fleet of {evidence.processes} may open {evidence.places} connections"
        figures: dict[str, float] = {
            "maxclients": server.maxclients, "places": evidence.places, "need": evidence.fleet_links,
            **{f"{row.consumer}_fleet": row.fleet for row in evidence.rows},
        }  # fmt: skip
        fleet += f", and needs {evidence.fleet_links} besides those that clients borrow"
        demand = ", ".join(f"{row.consumer} {row.process} and {row.fleet}" for row in evidence.rows)
        grade = {"fits": Grade.PASS, "near": Grade.PARTIAL}.get(evidence.verdict, Grade.FAIL)
        return self.found(
            grade,
            f"{server.maxclients}; {fleet}",
            f"{server.clients} clients are connected; {limits.most} connections are for the fleet. Demand of one "
            f"process and of the fleet: {demand}; recommended REDIS_MAX_CONNECTIONS={evidence.recommended}. "
            f"{evidence.reason}",
            remedy=evidence.advice,
            figures=figures,
        )


class ServerAnswers(Claim["Sequence[float]"]):
    """The server answers at once, without any load of ours."""

    name = "latency at rest"
    threshold = f"under {LATENCY_GOOD * 1000:.0f} ms; partial under {LATENCY_FAIR * 1000:.0f} ms"
    source = f"{GUIDE}, check 3"
    remedy = (
        "Look at the way to the server (distance, proxy, packet loss) and at what keeps it busy: SLOWLOG GET, its "
        "processor, swapping."
    )

    def judge(self, evidence: Sequence[float]) -> Outcome:
        """Grade the median, so that one slow answer of a machine that is busy at the moment does not count."""
        ordered = sorted(evidence)
        middle = ordered[len(ordered) // 2]
        return self.found(
            grade_below(middle, LATENCY_GOOD, LATENCY_FAIR),
            f"median {milliseconds(middle)}, longest {milliseconds(ordered[-1])}",
            f"{len(ordered)} PINGs, one after the other",
            figures={"p50_seconds": middle, "longest_seconds": ordered[-1]},
        )


def judge_check(check: Check) -> Outcome:
    """Turn a safety check of the server (`headrace.health.checks`) into an outcome."""
    grade = GRADES[check.status]
    measured, remedy = check.measured, check.remedy
    if check.status is CheckStatus.UNKNOWN:
        remedy = "Allow INFO, CONFIG GET and SLOWLOG to the user of REDIS_URL, or look there as somebody who may."
    return Outcome(
        name=check.name,
        grade=grade,
        measured=measured,
        threshold=check.threshold,
        source="safety checks of the server (docs/health.md)",
        evidence=check.meaning,
        remedy="" if grade is Grade.PASS else remedy,
    )


class ServerIsThere(Claim[str]):
    """The server can be reached at all."""

    name = "server"
    threshold = "it can be reached and used"
    source = OWN
    remedy = "Start the server, or correct REDIS_URL."

    def judge(self, evidence: str) -> Outcome:
        """Report what was in the way, or which server it is when nothing was."""
        return self.found(Grade.PASS, evidence)

    def refuted(self, reason: str, remedy: str) -> Outcome:
        """Report what was in the way, with its own remedy."""
        return self.found(Grade.FAIL, reason, remedy=remedy)
