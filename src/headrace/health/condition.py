"""How the server and the way to it are: signs go in, the status changes slowly, and each change is told once."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from headrace.health.probe import Machine
from headrace.health.verdict import ORDER, Finding, Status, worst

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Condition:
    """The status of the server with its reasons.

    Args:
        server: Address of the server, without credentials.
        publish: Called with the name of an event and its fields.
        now: Returns the time in seconds, of any clock.

    Attributes:
        machine: The status and its hysteresis.
        changed_at: When the status changed last.
    """

    def __init__(self, server: str, publish: Callable[..., None], now: Callable[[], float]) -> None:
        self.machine = Machine()
        self.changed_at = 0.0
        self._server = server
        self._publish = publish
        self._now = now
        self._findings: list[Finding] = []
        #: When the first sign of what is amiss was seen, 0 for none, and since when it is not healthy.
        self._sign_at = self._bad_since = 0.0

    @property
    def status(self) -> Status:
        """The server and the way to it, as of the last sign."""
        return self.machine.status

    def take(self, *findings: Finding, sign: Status | None = None) -> bool:
        """Take what one look has seen; tells whether the status changed.

        Args:
            findings: What is amiss.
            sign: What was seen where nothing is amiss; None for something in between.
        """
        now = self._now()
        if findings:
            sign = worst(finding.status for finding in findings)
            self._findings = sorted(findings, key=lambda finding: -ORDER.index(finding.status))
        before = self.status
        if before is Status.HEALTHY and findings and not self._sign_at:
            self._sign_at = now
        after = self.machine.feed(sign, sure=any(finding.sure for finding in findings))
        if after is not before:
            self._tell(before, after, now)
        if self.machine.is_quiet:
            self._sign_at = 0.0
        return after is not before

    def findings(self) -> list[Finding]:
        """Return what is amiss, the worst first; what was amiss before, while it recovers."""
        if self.status is Status.HEALTHY:
            return []
        good, needed = self.machine.progress
        if not good:
            return self._findings
        prefix = f"it recovers ({good} of {needed} good answers in a row); before, "
        return [dataclasses.replace(finding, reason=prefix + finding.reason) for finding in self._findings]

    def _tell(self, before: Status, after: Status, now: float) -> None:
        self.changed_at = now
        reasons = [finding.reason for finding in self._findings]
        remedies = [finding.remedy for finding in self._findings]
        text = "; ".join(reasons)
        if after is Status.HEALTHY:
            duration = now - self._bad_since
            logger.info("redis recovered", extra={"duration": round(duration, 3), "reason": text})
            self._publish("redis.recovered", server=self._server, duration=duration, reasons=reasons)
            self._findings = []
            return
        if before is Status.HEALTHY:
            self._bad_since = self._sign_at or now
        logger.warning("redis degraded", extra={"status": str(after), "reason": text, "remedy": " ".join(remedies)})
        self._publish(
            "redis.degraded",
            server=self._server,
            status=str(after),
            previous=str(before),
            reasons=reasons,
            remedies=remedies,
        )
