"""What /livez, /readyz and /healthz say: one answer for one worker process, and one for several under a supervisor.

- `/livez`: the process and its event loop live. 503 means that it hangs and is to be restarted.
- `/readyz`: it is consuming. 503 means that it takes no jobs: it starts, stops, is paused, or cannot reach its server.
- `/healthz`: the whole verdict. 503 means unhealthy; a degraded one is still 200, for it works.

`/metrics` is answered by whoever runs the listener, with text: see `headrace.telemetry`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headrace.health.verdict import Status, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.health.verdict import Health

METRICS: Final = "/metrics"
PATHS: Final = ("/livez", "/readyz", "/healthz", METRICS)
OK: Final = 200
UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: its status code, and what stands in its body: values as JSON, or a text of some type instead."""

    code: int
    body: Mapping[str, Any]
    text: str = ""
    type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Report:
    """How one worker process is.

    Attributes:
        ready: Whether it is consuming.
        reasons: Why it is not.
        health: Its verdict as plain values; empty while there is none.
        pid: Its process id.
    """

    ready: bool
    reasons: tuple[str, ...] = ()
    health: Mapping[str, Any] = field(default_factory=dict)
    pid: int = 0

    @property
    def status(self) -> Status:
        """The verdict in one word; unhealthy while there is none."""
        return Status(self.health.get("status", Status.UNHEALTHY))


def report_worker(health: Health | None, worker: str, pid: int, reason: str = "the worker starts") -> Report:
    """Report on one worker of an app.

    Args:
        health: The verdict on the app; None while it is not open.
        worker: Id of the worker.
        pid: Process id.
        reason: Why there is no verdict.
    """
    if health is None:
        return Report(ready=False, reasons=(reason,), pid=pid)
    state = next((state for state in health.workers if state.id == worker), None)
    if state is None:
        return Report(ready=False, reasons=("the worker has ended",), health=health.to_dict(), pid=pid)
    return Report(ready=state.ready, reasons=state.reasons, health=health.to_dict(), pid=pid)


def answer_one(path: str, report: Report) -> Answer:
    """Answer for one process, which lives since it answers.

    Example:
        >>> answer_one("/readyz", Report(ready=False, reasons=("it starts",), pid=7))
        Answer(code=503, body={'ready': False, 'reasons': ['it starts'], 'pid': 7})
        >>> answer_one("/livez", Report(ready=False)).code
        200
    """
    if path == "/livez":
        return Answer(OK, {"alive": True, "pid": report.pid})
    if path == "/readyz":
        body = {"ready": report.ready, "reasons": list(report.reasons), "pid": report.pid}
        return Answer(OK if report.ready else UNAVAILABLE, body)
    health = report.health or {"status": str(Status.UNHEALTHY), "reasons": list(report.reasons)}
    return Answer(_code(report.status), health)


def answer_many(path: str, reports: Sequence[Report | None], *, restarting: int = 0) -> Answer:
    """Answer for the processes of a supervisor: alive while any answers, ready while all are, as healthy as the worst.

    Args:
        path: One of `PATHS`.
        reports: One a place; None for a process that runs and does not answer.
        restarting: Places without a process, which gets one soon.

    Example:
        >>> ready = Report(ready=True, health={"status": "healthy"}, pid=7)
        >>> [answer_many("/readyz", reports).code for reports in ([ready], [ready, None])]
        [200, 503]
        >>> [answer_many("/livez", reports).code for reports in ([ready, None], [None], [])]
        [200, 503, 200]
    """
    shown = [_show(report) for report in reports]
    answering = [report for report in reports if report is not None]
    if path == "/livez":
        # Why: no process at all is a wait before the next start, which a restart from outside would only lengthen.
        alive = bool(answering) or not reports
        body: dict[str, Any] = {"alive": alive, "processes": len(reports), "answering": len(answering)}
        return Answer(OK if alive else UNAVAILABLE, body)
    if path == "/readyz":
        ready = bool(reports) and not restarting and all(report is not None and report.ready for report in reports)
        body = {"ready": ready, "processes": shown, "restarting": restarting}
        return Answer(OK if ready else UNAVAILABLE, body)
    statuses = [Status.UNHEALTHY if report is None else report.status for report in reports]
    status = worst([*statuses, *([Status.DEGRADED] if restarting else [])]) if reports else Status.UNHEALTHY
    verdicts = [{**each, "health": dict(report.health) if report else {}} for each, report in _pairs(shown, reports)]
    return Answer(_code(status), {"status": str(status), "processes": verdicts, "restarting": restarting})


def _pairs(
    shown: Sequence[dict[str, Any]], reports: Sequence[Report | None]
) -> list[tuple[dict[str, Any], Report | None]]:
    return list(zip(shown, reports, strict=True))


def _show(report: Report | None) -> dict[str, Any]:
    if report is None:
        return {"ready": False, "reasons": ["the process does not answer"]}
    return {"ready": report.ready, "reasons": list(report.reasons), "pid": report.pid}


def _code(status: Status) -> int:
    return UNAVAILABLE if status is Status.UNHEALTHY else OK
