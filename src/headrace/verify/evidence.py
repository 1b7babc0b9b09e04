"""What is measured: plain records, so that claims judge them without measuring, and a report can hold them."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.histogram import Quantiles


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The pool of the worker at one moment; `at` is in seconds since its first sample."""

    at: float
    active: int
    idle: int
    total: int
    waiting: int


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The worker process at one moment; sizes are bytes.

    Attributes:
        at: When, seconds since 1970.
        resident: Resident size.
        blocks: Blocks that the interpreter's allocator has handed out.
        timers: Timers that its event loop has set, its own and those of the app's code.
        census: What is live, by kind.
        minimum: Least connections of its pool.
        maximum: Most connections of its pool.
        pool: All figures of its pool.
        worker: What the worker did.
        memory_used: What counts against the limit.
        memory_limit: The limit; `memory_share` of it is used.
        memory_share: 0..1.
        relieved: When memory was freed because it was short, seconds since 1970.
        samples: What was sampled since the last look.
        lag: How late the event loop was while sampled; one value each 50 ms.
        response: Time from asking the pool for a connection to the first reply on it, since the last look.
        errors: Attempts that failed so far, by the class of their error.
    """

    at: float
    resident: int
    blocks: int
    timers: int
    census: dict[str, int]
    minimum: int
    maximum: int
    pool: dict[str, Any]
    worker: dict[str, int]
    memory_used: int
    memory_limit: int
    memory_share: float
    relieved: list[float]
    samples: list[Sample]
    lag: Quantiles
    response: Quantiles = Quantiles()
    errors: dict[str, int] = {}

    @property
    def calls(self) -> int:
        """Round trips of the pool so far."""
        return int(self.pool["calls_total"])


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the server held at one moment, with nothing waiting and nothing running.

    Attributes:
        keys: Keys below the prefix of the run.
        size: Their bytes, of the first 10,000 of them.
        others: All other keys of the server.
    """

    keys: int
    size: int
    others: int


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection that was asked for did; sizes are bytes.

    Attributes:
        made: Garbage that was made for it.
        before: Resident size with it.
        after: Resident size afterwards.
        seconds: How long the process stood still.
        actions: Each action with what it freed.
    """

    made: int
    before: int
    after: int
    seconds: float
    actions: list[str]


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker process ended: what the worker did, and what was left of its app."""

    worker: dict[str, int]
    census: list[str]
    threads: list[str]
    children: int


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log of a worker, as `headrace.logs.JsonLines` writes it, with the fields in `more`."""

    level: str
    logger: str = ""
    message: str = ""
    time: str = ""
    more: dict[str, Any] = {}


class LoadEvidence(msgspec.Struct, kw_only=True):
    """What one worker process did under load and at rest; times are seconds.

    Attributes:
        began: When the worker was started, seconds since 1970.
        jobs: Jobs without content that were completed, and in what time.
        jobs_seconds: That time.
        callers: Jobs that called the server through the pool.
        failed: Attempts of any job that failed.
        roundtrips: Calls a second that one connection of this machine makes, one after the other.
        slots: Slots of the worker.
        rates: Jobs without content a second, by part of that time.
        latency: Round trips of a connection beside the load.
        latencies: The same by part of the load.
        lags: How late the event loop was, by part of the load.
        before: The worker after the warm-up.
        under: The worker at the end of the load.
        after: The worker after the load, and after a collection.
        idle: Two looks at the worker while nothing was to do.
        collected: What a collection did.
        ended: How it ended.
        loop_lag_warn: From where on the event loop counts as blocked.
        log: Lines of its log at WARNING and above.
        stored: What the server held after the warm-up, and after the load.
        series: Seconds since the start and resident size, one a second at most.
        left_keys: Keys that were left after the clean-up.
        left_here: What was left of the app in this process.
    """

    began: float = 0.0
    jobs: int = 0
    jobs_seconds: float = 0.0
    callers: int = 0
    failed: int = 0
    roundtrips: float = 0.0
    slots: int = 0
    rates: list[float] = []
    latency: Quantiles = Quantiles()
    latencies: list[Quantiles] = []
    lags: list[Quantiles] = []
    before: Look | None = None
    under: Look | None = None
    after: Look | None = None
    idle: list[Look] = []
    collected: Collected | None = None
    ended: Ended | None = None
    loop_lag_warn: float = 0.25
    log: list[LogLine] = []
    stored: list[Stored] = []
    series: list[tuple[float, int]] = []
    left_keys: list[str] = []
    left_here: list[str] = []

    @property
    def all_jobs(self) -> int:
        """Jobs of both kinds."""
        return self.jobs + self.callers


class Strike(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, and how the workers came out of it.

    Attributes:
        fault: `kill`, `pause`, `cut`, `restart` or `crash`, which is SIGKILL for the server.
        struck: What it struck, in words; empty when it struck nothing.
        held: Jobs that the struck worker held.
        recovered: Seconds from the end of the fault until work went on: all held jobs begun elsewhere, or others; None
            when it never did.
        skipped: Why it was not done; empty when it was.
    """

    fault: str
    struck: str = ""
    held: int = 0
    recovered: float | None = None
    skipped: str = ""


class DrillEvidence(msgspec.Struct, kw_only=True):
    """What became of the jobs of the drill.

    Attributes:
        lease: Lease of its workers, seconds.
        accepted: Jobs whose enqueue returned.
        lost: Those that nobody finished.
        allowed: Those of them that the persistence of the server does not promise to keep through a SIGKILL.
        persistence: What it promises then, in words; empty when the server was not killed.
        completed: Jobs completed, as the server counted them.
        dead: Jobs that died.
        twice: Jobs that began more than once.
        unexplained: Those of them that no struck worker held, and that began before and after no fault.
        refused: Results of late workers that were refused.
        strikes: The faults in their order.
        seconds: How long it took.
    """

    lease: float = 0.0
    accepted: int = 0
    lost: int = 0
    allowed: int = 0
    persistence: str = ""
    completed: int = 0
    dead: int = 0
    twice: int = 0
    unexplained: int = 0
    refused: int = 0
    strikes: list[Strike] = []
    seconds: float = 0.0

    def strike(self, fault: str) -> Strike | None:
        """Return one fault."""
        return next((strike for strike in self.strikes if strike.fault == fault), None)
