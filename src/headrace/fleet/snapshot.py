"""What one running process shows of itself when somebody looks: its duties, census, pool, memory, subscribers.

Nothing of it is stored, and nothing is sent while nobody asks: whoever looks names a channel, and every process answers
there once. So an idle process pays nothing for being visible, and what is seen is of this moment.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from headrace.fleet.figures import total_figures
from headrace.memory.process import governor
from headrace.settings_rows import describe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.census import Census, CensusRow
    from headrace.clock import Clock
    from headrace.events import EventBus
    from headrace.memory.status import MemoryStatus
    from headrace.settings import Settings
    from headrace.worker.host import Follower

#: Largest snapshot, bytes; lists are cut until it fits.
LIMIT_BYTES: Final = 32_768
#: Entries of each list, the oldest, slowest or largest of them.
ENTRIES: Final = 64
#: Longest text, characters.
TEXT: Final = 120


class LiveThing(msgspec.Struct, frozen=True):
    """Entries of the census that differ by numbers in their names only, which are `#` when there are several.

    `age` is that of the oldest, in seconds, `place` the line that made them.
    """

    kind: str
    name: str
    owner: str
    age: float
    place: str
    count: int = 1


class DutyFigures(msgspec.Struct, frozen=True):
    """One duty or alarm of the clock; see `headrace.clock.DutyStats`. Times are seconds."""

    name: str
    owner: str
    interval: float
    runs: int
    skipped: int
    failures: int
    late_maximum: float
    cost_maximum: float
    cost_total: float


class Held(msgspec.Struct, frozen=True):
    """One connection that a client holds; see `headrace.pool.holders.Holder`. `held` is seconds."""

    lane: str
    owner: str
    purpose: str
    place: str
    held: float


class PoolFigures(msgspec.Struct, frozen=True):
    """The pool; see `headrace.pool.figures.PoolStats`. Times are seconds of the last one to two minutes.

    `holders` are those that have had a connection for longest; cut to what fits.
    """

    maximum: int = 0
    total: int = 0
    active: int = 0
    idle: int = 0
    waiting: int = 0
    waiting_highest: int = 0
    timeouts_total: int = 0
    wait_p95: float = 0.0
    response_p95: float = 0.0
    holders: list[Held] = []


class History(msgspec.Struct, frozen=True):
    """One bounded buffer or history; None where it does not say."""

    name: str
    size_bytes: int | None
    limit_bytes: int | None


class MemoryFigures(msgspec.Struct, frozen=True):
    """The memory of the process; see `headrace.memory.status.MemoryStatus`."""

    step: str = ""
    used_bytes: int = 0
    budget_bytes: int = 0
    growth: float = 0.0
    leak_suspected: bool = False
    histories: list[History] = []
    #: The latest times at which memory was freed because it was short, Unix times.
    optimizations: list[float] = []


class Subscriber(msgspec.Struct, frozen=True):
    """One subscriber; see `headrace.events.SubscriptionStats`."""

    event: str
    name: str
    owner: str
    waiting: int
    limit: int
    dropped: int
    behind: float
    slow: bool


class Snapshot(msgspec.Struct, frozen=True):
    """One process at one moment.

    Attributes:
        app: Id of the app.
        host: Name of the machine.
        pid: Process id.
        at: Unix time of the process.
        workers: Workers that run in it.
        concurrency: Their slots.
        running: Jobs that run in them.
        buffered: Jobs that they hold ahead.
        completed: Jobs that they completed.
        failed: Jobs that died in them.
        counts: What is live, by kind; complete.
        census: What is live, alike together, the oldest first; cut to what fits.
        duties: Duties and alarms, those that took most time first; cut to what fits.
        subscribers: Subscribers, those that are most behind first; cut to what fits.
        pool: The pool.
        memory: The memory.
        settings: Value and source of each setting that has not its default, passwords masked; None when the process is
            of a version that does not tell.
    """

    app: str
    host: str
    pid: int
    at: float = 0.0
    workers: int = 0
    concurrency: int = 0
    running: int = 0
    buffered: int = 0
    completed: int = 0
    failed: int = 0
    counts: dict[str, int] = {}
    census: list[LiveThing] = []
    duties: list[DutyFigures] = []
    subscribers: list[Subscriber] = []
    pool: PoolFigures = PoolFigures()
    memory: MemoryFigures = MemoryFigures()
    settings: dict[str, tuple[str, str]] | None = None


class Shown(Protocol):
    """What a snapshot reads of an open app."""

    @property
    def census_book(self) -> Census:
        """Everything live."""
        ...

    @property
    def clock(self) -> Clock:
        """Its duties."""
        ...

    @property
    def events(self) -> EventBus:
        """Its subscribers."""
        ...

    @property
    def pool(self) -> Any:
        """Its pool."""
        ...

    @property
    def settings(self) -> Settings:
        """Its settings."""
        ...


_NUMBER: Final = re.compile(r"\d+")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


def take_snapshot(app_id: str, app: Shown, followers: Iterable[Follower]) -> Snapshot:
    """Look at this process.

    Args:
        app_id: Id of the app.
        app: The open app.
        followers: Its running workers.
    """
    totals = total_figures(followers)
    return Snapshot(
        app=app_id,
        host=socket.gethostname()[:TEXT],
        pid=os.getpid(),
        at=time.time(),
        workers=totals["workers"],
        concurrency=totals["concurrency"],
        running=totals["running"],
        buffered=totals["buffered"],
        completed=totals["completed"],
        failed=totals["failed"],
        counts={str(kind): count for kind, count in app.census_book.counts().items()},
        census=_census(app.census_book),
        duties=_duties(app.clock),
        subscribers=_subscribers(app.events),
        pool=_pool(app.pool),
        memory=_memory(governor().status()),
        settings={
            row.name: (row.shown[:TEXT], row.source) for row in describe(app.settings) if row.source != "default"
        },
    )


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Write a snapshot in at most 32 KiB: lists are halved until it fits, the counts stay complete."""
    most = ENTRIES
    while len(encoded := _encoder.encode(snapshot)) > LIMIT_BYTES and most:
        most //= 2
        snapshot = msgspec.structs.replace(
            snapshot,
            census=snapshot.census[:most],
            duties=snapshot.duties[:most],
            subscribers=snapshot.subscribers[:most],
            memory=msgspec.structs.replace(snapshot.memory, histories=snapshot.memory.histories[:most]),
            pool=msgspec.structs.replace(snapshot.pool, holders=snapshot.pool.holders[:most]),
        )
    return encoded


def decode_snapshot(message: bytes) -> Snapshot | None:
    """Read what a process told; None when it is nothing of ours."""
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _census(book: Census) -> list[LiveThing]:
    # Why together: a hundred slots would hide everything else.
    alike: dict[tuple[str, ...], list[CensusRow]] = {}
    for row in book.entries():
        alike.setdefault((row.kind, _NUMBER.sub("#", row.name), row.owner, row.place), []).append(row)
    return [
        LiveThing(
            str(rows[0].kind),
            (name if len(rows) > 1 else rows[0].name)[:TEXT],
            rows[0].owner[:TEXT],
            round(rows[0].age, 1),
            rows[0].place[-TEXT:],
            len(rows),
        )
        for (_, name, *_), rows in list(alike.items())[:ENTRIES]
    ]


def _duties(clock: Clock) -> list[DutyFigures]:
    stats = sorted(clock.stats(), key=lambda one: one.cost_total, reverse=True)[:ENTRIES]
    return [
        DutyFigures(
            one.name[:TEXT], one.owner[:TEXT], one.interval, one.runs, one.skipped, one.failures,
            one.late_maximum, one.cost_maximum, one.cost_total,
        )
        for one in stats
    ]  # fmt: skip


def _subscribers(bus: EventBus) -> list[Subscriber]:
    stats = sorted(bus.stats(), key=lambda one: (one.slow, one.behind), reverse=True)[:ENTRIES]
    return [
        Subscriber(
            one.event[:TEXT], one.name[:TEXT], one.owner[:TEXT],
            one.waiting, one.limit, one.dropped, one.behind, one.slow,
        )
        for one in stats
    ]  # fmt: skip


def _pool(pool: Any) -> PoolFigures:
    stats = pool.stats()
    return PoolFigures(
        stats.maximum, stats.total, stats.active, stats.idle, stats.waiting, stats.waiting_highest,
        stats.timeouts_total, stats.wait.p95, stats.response.p95,
        [
            Held(one.lane, one.owner[:TEXT], one.purpose[:TEXT], one.place[-TEXT:], round(one.held, 1))
            for one in pool.holders()[:ENTRIES]
        ],
    )  # fmt: skip


def _memory(status: MemoryStatus) -> MemoryFigures:
    buffers = sorted(status.buffers, key=lambda one: one.size_bytes or 0, reverse=True)[:ENTRIES]
    return MemoryFigures(
        step=status.step,
        used_bytes=status.used_bytes,
        budget_bytes=status.limit.budget_bytes,
        growth=status.growth.value,
        leak_suspected=status.leak_suspected,
        histories=[History(one.name[:TEXT], one.size_bytes, one.limit_bytes) for one in buffers],
        optimizations=status.optimizations[-ENTRIES:],
    )


def total_counts(snapshots: Iterable[Snapshot]) -> Counter[str]:
    """Add up what is live in several processes, by kind."""
    counts: Counter[str] = Counter()
    for snapshot in snapshots:
        counts.update(snapshot.counts)
    return counts
