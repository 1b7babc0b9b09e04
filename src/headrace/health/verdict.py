"""What `await app.health()` returns: one status, the reasons for it, what to do, and the figures behind them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.histogram import Quantiles

if TYPE_CHECKING:
    from collections.abc import Iterable


#: Figures of what was never measured.
NOTHING: Final = Quantiles()


class Status(StrEnum):
    """How something is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


#: From the best to the worst.
ORDER: Final = (Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY)


def worst(statuses: Iterable[Status]) -> Status:
    """Return the worst of some statuses; healthy without any.

    Example:
        >>> str(worst([Status.HEALTHY, Status.UNHEALTHY, Status.DEGRADED])), str(worst([]))
        ('unhealthy', 'healthy')
    """
    return max(statuses, key=ORDER.index, default=Status.HEALTHY)


class CheckStatus(StrEnum):
    """What a safety check found.

    `warn` is to be looked at and changes no verdict; `bad` degrades it; `unknown` could not be found out.
    """

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        status: How bad it is.
        reason: What happened, with its figures, as a sentence.
        remedy: What to do, as a sentence.
        sure: Whether one look is enough to know; what is not sure must be seen several times in a row.
    """

    status: Status
    reason: str
    remedy: str
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Check:
    """One safety check of the server.

    Attributes:
        name: What is checked.
        status: What was found.
        measured: The figures.
        threshold: From where on it is not ok.
        meaning: What it means for the queues.
        remedy: What to do when it is not ok.
    """

    name: str
    status: CheckStatus
    measured: str
    threshold: str
    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the server takes to answer on the control lane, in seconds.

    Attributes:
        threshold: Above this an answer counts as slow.
        last: The last answer to a probe, without the delay of the own event loop; None before the first.
        server: The part of it in which the request waited for the server, as well as that can be told.
        network: The rest of it: the way there and back.
        recent: All calls on the control lane in the last one to two minutes, as this process felt them.
    """

    threshold: float
    last: float | None = None
    server: float = 0.0
    network: float = 0.0
    recent: Quantiles = NOTHING


@dataclass(frozen=True, slots=True)
class LoopLag:
    """How late the event loop of this process was, in seconds.

    Attributes:
        threshold: Above this the loop counts as blocked.
        last: Longest delay seen during the last look.
        recent: One value a look, of the last one to two minutes.
    """

    threshold: float
    last: float = 0.0
    recent: Quantiles = NOTHING


NO_LATENCY: Final = Latency(0.1)
NO_LAG: Final = LoopLag(0.25)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker of this process.

    Attributes:
        id: Id of the worker.
        ready: Whether it is consuming: it takes jobs, or would if there were any.
        reasons: Why it is not.
        queues: The queues that it serves.
        running: Jobs that run.
        slots: Jobs that may run at once.
    """

    id: str
    ready: bool
    reasons: tuple[str, ...]
    queues: tuple[str, ...]
    running: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The verdict on one app at one moment.

    Attributes:
        status: The worst of the server, the event loop, the pool and the safety checks.
        reasons: Why it is not healthy, the worst first; empty when it is.
        remedies: What to do, one for each reason.
        server: Address of the server, without credentials.
        redis: The server and the way to it alone.
        since: Seconds that it has been so.
        latency: How long the server takes to answer.
        loop: The event loop of this process alone.
        loop_lag: How late it was.
        checks: What is safe and what is not, one for each thing checked; empty before the server was ever reached.
        checks_age: Seconds since their figures were fetched; None when they never were.
        pool: Figures of the connection pool.
        workers: The workers of this process.
        at: When, in seconds since 1970.
    """

    status: Status
    reasons: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    server: str = ""
    redis: Status = Status.HEALTHY
    since: float = 0.0
    latency: Latency = NO_LATENCY
    loop: Status = Status.HEALTHY
    loop_lag: LoopLag = NO_LAG
    checks: tuple[Check, ...] = ()
    checks_age: float | None = None
    pool: dict[str, Any]
    workers: tuple[WorkerState, ...] = ()
    at: float = 0.0

    def check(self, name: str) -> Check | None:
        """Return one safety check by its name."""
        return next((check for check in self.checks if check.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
