"""What a pool tells about itself: one frozen record of counts and times, and who holds a connection for long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headrace.histogram import Quantiles

if TYPE_CHECKING:
    from headrace.pool.ledger import Ledger

NOTHING: Final = Quantiles()


@dataclass(frozen=True, slots=True)
class LaneStats:
    """One lane at one moment.

    Attributes:
        share: Connections that it may use.
        active: Connections of it in use.
        opening: Connections being opened that its waiting callers will get; one may go to whoever comes first.
        waiting: Callers that wait for one.
        waiting_highest: The most of them in the last minute.
        timeouts_total: Waits that ran out.
    """

    share: int
    active: int
    opening: int = 0
    waiting: int = 0
    waiting_highest: int = 0
    timeouts_total: int = 0


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment; totals count since it was made, times are those of the last one to two minutes.

    Attributes:
        name: Name of the pool.
        minimum: Connections that it keeps open.
        maximum: Connections that it never passes, counting those being opened and closed.
        total: Open connections.
        active: Those in use.
        idle: Those not in use.
        opening: Connections being opened.
        waiting: Callers without a connection.
        waiting_highest: The most of them in the last minute.
        lanes: The lanes by name.
        opened_total: Connections opened.
        closed_total: Connections closed.
        failed_total: Attempts to open that failed, and connections that broke.
        timeouts_total: Waits that ran out.
        calls_total: Leases that ended, and calls on links.
        errors: Errors by class, at most 33 classes.
        wait: Seconds that callers waited for a connection.
        response: Seconds from acquire to release, and round trips of links, those of the blocking lane left out.
    """

    name: str
    minimum: int
    maximum: int
    total: int
    active: int
    idle: int
    opening: int
    waiting: int
    waiting_highest: int = 0
    lanes: dict[str, LaneStats] = field(default_factory=dict)
    opened_total: int = 0
    closed_total: int = 0
    failed_total: int = 0
    timeouts_total: int = 0
    calls_total: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    wait: Quantiles = NOTHING
    response: Quantiles = NOTHING

    def fields(self) -> dict[str, object]:
        """Return the figures as the fields of one log line; times are milliseconds there."""
        line: dict[str, object] = {
            "pool": self.name,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "total": self.total,
            "active": self.active,
            "idle": self.idle,
            "opening": self.opening,
            "waiting": self.waiting,
            "waiting_highest": self.waiting_highest,
            "opened": self.opened_total,
            "closed": self.closed_total,
            "failed": self.failed_total,
            "timeouts": self.timeouts_total,
            "calls": self.calls_total,
        }
        for what, times in (("wait", self.wait), ("response", self.response)):
            line[f"{what}_mean_ms"] = round(times.mean * 1000, 3)
            line[f"{what}_p50_ms"] = round(times.p50 * 1000, 3)
            line[f"{what}_p95_ms"] = round(times.p95 * 1000, 3)
            line[f"{what}_p99_ms"] = round(times.p99 * 1000, 3)
        line["lanes"] = " ".join(
            f"{name}:{lane.active}/{lane.share}+{lane.waiting}" for name, lane in self.lanes.items()
        )
        line["errors"] = " ".join(f"{name}:{count}" for name, count in self.errors.items()) or "none"
        return line


def share_openings(ledger: Ledger[Any]) -> dict[str, int]:
    """Divide what is being opened among the lanes whose callers wait for it, in the order in which lanes are served."""
    left = ledger.opening
    shares: dict[str, int] = {}
    for lane, book in ledger.lanes.items():
        part = min(left, len(book.waiters), max(0, book.share - book.used))
        shares[str(lane)] = part
        left -= part
    return shares


def read_stats(name: str, ledger: Ledger[Any], now: float) -> PoolStats:
    """Read the figures of a ledger; places that it reserved for others are not counted."""
    active = len(ledger.leased)
    idle = len(ledger.idle)
    openings = share_openings(ledger)
    return PoolStats(
        name=name,
        minimum=ledger.minimum,
        maximum=ledger.maximum,
        total=active + idle,
        active=active,
        idle=idle,
        opening=ledger.opening,
        waiting=ledger.waiting,
        waiting_highest=ledger.waiting_highest.highest(now),
        lanes={
            str(lane): LaneStats(
                share=book.share,
                active=book.used,
                opening=openings[str(lane)],
                waiting=len(book.waiters),
                waiting_highest=book.waiting_highest.highest(now),
                timeouts_total=book.timeouts,
            )
            for lane, book in ledger.lanes.items()
        },
        opened_total=ledger.opened_total,
        closed_total=ledger.closed_total,
        failed_total=ledger.failed_total,
        timeouts_total=ledger.timeouts_total,
        calls_total=ledger.calls_total,
        errors=dict(ledger.errors),
        wait=ledger.waits.quantiles(now),
        response=ledger.responses.quantiles(now),
    )


def find_held(name: str, ledger: Ledger[Any], limit: float, now: float) -> list[dict[str, object]]:
    """Return the facts about each connection held for at least `limit` seconds, each once; none without a limit."""
    found: list[dict[str, object]] = []
    for member in ledger.leased.values() if limit else ():
        if not member.reported and now - member.since >= limit:
            member.reported = True
            holder = member.holder(now)
            facts: dict[str, object] = {"pool": name, "lane": holder.lane, "held_s": round(holder.held, 1)}
            found.append(facts | {"owner": holder.owner, "purpose": holder.purpose, "place": holder.place})
    return found
