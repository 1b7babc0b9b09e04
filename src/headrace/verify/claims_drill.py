"""Claims about what is promised when workers, connections and the server fail."""

from __future__ import annotations

from typing import Final

from headrace.verify.claim import OWN, PROMISE, Claim
from headrace.verify.evidence import DrillEvidence, Strike
from headrace.verify.outcome import Grade, Outcome, grade_low

#: Jobs of a lost worker begin elsewhere so long after its lease, seconds.
LATE_GOOD: Final = 1.0
LATE_FAIR: Final = 5.0
#: Work goes on so soon after connections or the server are back, seconds.
BACK_GOOD: Final = 2.0
BACK_FAIR: Final = 10.0

WORDS: Final = {
    "kill": "worker killed",
    "pause": "worker paused beyond its lease",
    "cut": "connections cut",
    "restart": "server restarted",
    "crash": "server killed",
}


class NoJobLost(Claim[DrillEvidence]):
    """No accepted job is lost, whatever was struck."""

    name = "jobs lost"
    threshold = "none, and none dead (partial: those that appendfsync everysec does not keep through a SIGKILL)"
    source = PROMISE
    remedy = (
        "Look at the persistence of the server first: without its append-only file a restart loses jobs. Then at the "
        "logs of the workers (`--report DIR`)."
    )
    allowed_remedy = (
        "The server was killed while its last second was not written yet. `appendfsync always` keeps that too, and "
        "makes each write wait for the disk."
    )

    def judge(self, evidence: DrillEvidence) -> Outcome:
        """Hold what was accepted against what ended."""
        if not evidence.accepted:
            return self.skipped("no job of the drill was accepted")
        wrong = evidence.lost - evidence.allowed + evidence.dead
        struck = ", ".join(WORDS[strike.fault] for strike in evidence.strikes if not strike.skipped) or "nothing"
        promise = f"; {evidence.persistence}" if evidence.persistence else ""
        return self.found(
            Grade.FAIL if wrong else Grade.PARTIAL if evidence.allowed else Grade.PASS,
            f"{evidence.lost} of {evidence.accepted}, {evidence.dead} dead",
            f"struck: {struck}{promise}",
            remedy="" if wrong else self.allowed_remedy,
            figures={"accepted": evidence.accepted, "lost": evidence.lost, "dead": evidence.dead},
        )


class NoJobDoubled(Claim[DrillEvidence]):
    """A job that was completed is not completed again, and only what a fault has interrupted begins again."""

    name = "jobs doubled"
    threshold = "none completed twice, none begun twice without a fault"
    source = PROMISE
    remedy = "A lease that is too short for this machine makes workers lose it: raise QUEUE_STALLED_INTERVAL."

    def judge(self, evidence: DrillEvidence) -> Outcome:
        """Hold the server's count against what was accepted, and each second start against the faults."""
        if not evidence.accepted:
            return self.skipped("no job of the drill was accepted")
        over = max(0, evidence.completed - evidence.accepted)
        return self.found(
            Grade.FAIL if over or evidence.unexplained else Grade.PASS,
            f"{over} completed twice, {evidence.unexplained} begun twice without a fault",
            f"{evidence.completed} completed by the server's count, {evidence.twice} begun twice after a fault struck, "
            f"{evidence.refused} late results refused by the fence",
            figures={"completed_twice": over, "unexplained": evidence.unexplained, "begun_twice": evidence.twice},
        )


class Recovery(Claim[DrillEvidence]):
    """Work goes on soon after one fault.

    Args:
        fault: Which one.
    """

    source = f"docs/guarantees.md; the margins are {OWN}"
    remedy = (
        "A lost worker is replaced after its lease: lower QUEUE_STALLED_INTERVAL, or give this machine and the server "
        "more to compute with."
    )

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.name = WORDS[fault]  # type: ignore[misc]  # one class for all faults, each with its own name

    def judge(self, evidence: DrillEvidence) -> Outcome:
        """Judge the time until work went on."""
        strike = evidence.strike(self.fault)
        if strike is None:
            return self._not_done("not part of this run")
        if strike.skipped:
            return self._not_done(strike.skipped)
        good, fair, threshold = BACK_GOOD, BACK_FAIR, f"work goes on within {BACK_GOOD:g} s (partial {BACK_FAIR:g})"
        if self.fault in {"kill", "pause"}:
            good, fair = evidence.lease + LATE_GOOD, evidence.lease + LATE_FAIR
            threshold = f"its jobs begin elsewhere within the lease of {evidence.lease:g} s and {LATE_GOOD:g} s"
        if self.fault in {"kill", "pause"} and not strike.held:
            return self.found(
                Grade.PARTIAL, "it held no job", strike.struck, threshold=threshold, remedy="Run it once more."
            )
        return self._judge(strike, good, fair, threshold)

    def _judge(self, strike: Strike, good: float, fair: float, threshold: str) -> Outcome:
        if strike.recovered is None:
            return self.found(Grade.FAIL, "work did not go on", strike.struck, threshold=threshold)
        held = f" with {strike.held} jobs" if strike.held else ""
        return self.found(
            grade_low(strike.recovered, good, fair),
            f"{strike.recovered:.2f} s",
            f"{strike.struck}{held}",
            threshold=threshold,
            figures={"recovered_seconds": strike.recovered},
        )

    def _not_done(self, reason: str) -> Outcome:
        return self.found(Grade.SKIPPED, "not done", reason, threshold="work goes on", remedy=" ")
