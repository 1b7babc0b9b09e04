"""What the scripts return, as types: the one place where codes become words and errors."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.errors import CommandRefused, ConnectionLost
from headrace.keys import HIGHEST_PRIORITY
from headrace.record import Failure, Outcome, Record, State, read_failures, read_outcome, read_record, read_state
from headrace.resp import NO_RIGHT, is_no_right

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Status codes of reserve, settle and renew.
DONE: Final = 0
PAUSED: Final = 1
LEASE_LOST: Final = -1
#: Fences above it are times, ms since 1970: it stands for the year 2001.
FIRST_TIME_MS: Final = 1_000_000_000_000
#: List of a job whose record does not tell its priority.
NORMAL_PRIORITY: Final = 5


@dataclass(slots=True)
class Reserved:
    """Jobs leased by one call of reserve. `holds` runs beside `ids`; `known` maps an index to its state and errors."""

    status: int
    now_ms: int
    next_due_ms: int
    next_lease_ms: int
    remain: bool
    ids: list[bytes]
    records: list[bytes | None]
    holds: list[bytes]
    known: dict[int, tuple[bytes, bytes]]


def parse_reserved(reply: list[Any]) -> Reserved:
    """Read the reply of reserve."""
    status, now, next_due, next_lease, remain, ids, records, runs, known = reply
    holds: list[bytes] = []
    for at in range(0, len(runs), 2):
        holds += [runs[at]] * runs[at + 1]
    states = {known[at]: (known[at + 1], known[at + 2]) for at in range(0, len(known), 3)} if known else {}
    return Reserved(status, now, next_due, next_lease, remain == 1, ids, records, holds, states)


def is_started(hold: bytes) -> bool:
    """Tell whether a hold says that its job was started."""
    return b"+" in hold


def fence_of(hold: bytes) -> int:
    """Return the fence of a hold: a number that grows with each lease of a job."""
    digits = hold.partition(b"+" if b"+" in hold else b"-")[0]
    return int(digits) if digits.isdigit() else 0


def worker_of(hold: bytes) -> str:
    """Return the worker that a hold names, or an empty text."""
    return hold.replace(b"-", b"+").split(b"+", 2)[-1].decode() if hold else ""


def held_since_ms(hold: bytes) -> int:
    """Return when a job was leased, by the server's clock; 0 when its hold does not tell.

    The fence of a lease is the time at which it was given, or one more than the last fence if that is later.

    Example:
        >>> held_since_ms(b"1790000000000+5+mail"), held_since_ms(b"7+5+mail"), held_since_ms(b"")
        (1790000000000, 0, 0)
    """
    fence = fence_of(hold)
    return fence if fence >= FIRST_TIME_MS else 0


class WorkerFacts(msgspec.Struct, frozen=True):
    """What a worker says of itself, once a minute. `seen` and `started` are seconds since 1970.

    `settings` is the version of the fleet's settings that it has taken, `restart` what of it waits for a restart;
    `refused` is a later version that it did not take, for the `reason`.
    """

    host: str = ""
    pid: int = 0
    queues: list[str] = []
    concurrency: int = 0
    started: float = 0.0
    seen: float = 0.0
    settings: int = 0
    restart: list[str] = []
    refused: int = 0
    reason: str = ""


_worker_facts = msgspec.msgpack.Decoder(WorkerFacts)


def parse_workers(reply: Mapping[bytes, bytes]) -> dict[str, WorkerFacts]:
    """Read entries of the registry of workers; those that cannot be read are left out."""
    found: dict[str, WorkerFacts] = {}
    for name, facts in reply.items():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            found[name.decode()] = _worker_facts.decode(facts)
    return found


@dataclass(slots=True)
class Settled:
    """What a call of settle did. Refused jobs were not this worker's any more."""

    status: int
    now_ms: int
    refused: list[bytes]


@dataclass(slots=True)
class Reclaimed:
    """One page of reclaim: whose lease ran out, and what became of the jobs.

    No worker is late when `worker` is empty.
    """

    worker: str
    cursor: str
    now_ms: int
    next_lease_ms: int
    back: int
    died: int
    unstarted: int


@dataclass(slots=True)
class Promoted:
    """What promote moved, and when it is wanted next (Redis ms, 0 for never)."""

    moved: int
    now_ms: int
    next_due_ms: int
    next_lease_ms: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that is known of one job. Times are Redis milliseconds; 0 stands for none."""

    status: str
    now_ms: int
    record_bytes: bytes
    state: State
    failures: list[Failure]
    progress: tuple[float, str] | None
    outcome: Outcome | None
    at_ms: int
    hold: bytes
    paused: bool
    lease_deadline_ms: int

    @property
    def priority(self) -> int:
        """Priority of the job, that of its list; that of a normal job when its record does not tell."""
        level = self.record_bytes[1] if len(self.record_bytes) > 1 else 0
        return level if 1 <= level <= HIGHEST_PRIORITY else NORMAL_PRIORITY

    def record(self) -> Record | None:
        """Read the record; raises RecordCorrupt or RecordTooNew."""
        return read_record(self.record_bytes) if self.record_bytes else None


_progress = msgspec.msgpack.Decoder(tuple[float, str])


def parse_found(reply: list[Any]) -> Found:
    """Read the reply of find."""
    status, now, record, state, errors, progress, outcome, at, hold, paused, deadline = reply
    return Found(
        status.decode(), now, record, read_state(state), read_failures(errors),
        _progress.decode(progress) if progress else None,
        read_outcome(outcome) if outcome else None,
        at, hold, paused == 1, deadline,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """The jobs of a queue by status, its totals, and the counts of the last minutes.

    `minutes` maps a name (completed, failed, retried, stalled, spent_ms) to {age in minutes: amount}.
    """

    now_ms: int
    waiting: int
    delayed: int
    active: int
    dead: int
    cancelled: int
    kept: int
    workers: int
    oldest_ms: int
    paused_since_ms: int
    totals: Mapping[str, int]
    minutes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


def parse_counts(reply: list[Any]) -> Counts:
    """Read the reply of stats."""
    now = reply[0]
    meta = {reply[9][at].decode(): int(reply[9][at + 1]) for at in range(0, len(reply[9]), 2)}
    this_minute = now // 60_000
    totals: dict[str, int] = {}
    minutes: dict[str, dict[int, int]] = {}
    for name, value in meta.items():
        if name[0] == "m" and name[1].isdigit():
            stamp = meta.get(name + "@")
            if not name.endswith("@") and stamp is not None and 0 <= this_minute - stamp < 60:  # noqa: PLR2004 - minutes of one hour
                minutes.setdefault(name.lstrip("m0123456789"), {})[this_minute - stamp] = value
        else:
            totals[name] = value
    paused = totals.pop("paused", 0)
    waiting, delayed, active, dead, cancelled, kept, workers, oldest = (max(0, number) for number in reply[1:9])
    return Counts(now, waiting, delayed, active, dead, cancelled, kept, workers, oldest, paused, totals, minutes)


def raise_lost(replies: Iterable[Any]) -> None:
    """Raise the first ConnectionLost that stands in the place of a reply: another node of a cluster has answered."""
    for reply in replies:
        if isinstance(reply, ConnectionLost):
            raise reply


def refuse(reply: Any, what: str, where: str) -> None:
    """Raise CommandRefused when a reply is an error, or the ConnectionLost in its place; `where` names the server."""
    if isinstance(reply, ConnectionLost):
        raise reply
    if isinstance(reply, Exception):
        said = str(reply).rstrip(".")
        remedy = "Look at its log and memory, and at what else writes to its keys."
        if said.startswith("OOM"):
            remedy = "Free some of its memory (`headrace queues clear`), or raise maxmemory; see `headrace health`."
        elif is_no_right(said):
            remedy = NO_RIGHT
        raise CommandRefused(f"{where} refused {what}: {said}. {remedy}") from reply
