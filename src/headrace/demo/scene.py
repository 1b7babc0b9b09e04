"""What the demonstration knows while it runs, and what it found in the end: plain data, for display and JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.demo.app import Function
    from headrace.pool.figures import PoolStats
    from headrace.queue import QueueStats


@dataclass(frozen=True, slots=True)
class Moment:
    """One sentence of the story; `at` is in seconds since the start, `mood` is plain, bad or good."""

    at: float
    text: str
    mood: str = "plain"


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process as the display shows it; None where a figure does not apply."""

    name: str
    pid: int
    state: str
    files: int | None = None
    memory_bytes: int | None = None
    connections: int | None = None
    is_worker: bool = False


@dataclass(slots=True)
class Scene:
    """The present state, which the run changes and the display shows."""

    jobs: int = 0
    what: str = ""
    phase: str = "starting"
    server: str = ""
    completed: int = 0
    rate: float = 0.0
    recounted: int = 0
    recount_of: int = 0
    queues: dict[str, QueueStats] = field(default_factory=dict)
    processes: list[ProcessRow] = field(default_factory=list)
    pool: PoolStats | None = None
    pool_most: int = 0
    pool_waited: int = 0
    worker_connections_most: int = 0
    memory_most_bytes: int = 0
    story: list[Moment] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def note_most(self) -> None:
        """Note the highest figures seen so far."""
        if self.pool is not None:
            self.pool_most = max(self.pool_most, self.pool.total)
            self.pool_waited = max(self.pool_waited, self.pool.waiting)
        workers = [row.connections or 0 for row in self.processes if row.is_worker]
        self.worker_connections_most = max(self.worker_connections_most, *workers, 0)
        memory_bytes = sum(row.memory_bytes or 0 for row in self.processes)
        self.memory_most_bytes = max(self.memory_most_bytes, memory_bytes)

    def tell(self, text: str, mood: str = "plain") -> Moment:
        """Add a sentence to the story."""
        moment = Moment(self.elapsed, text, mood)
        self.story.append(moment)
        return moment

    def retell(self, moment: Moment | None, text: str, at: float) -> Moment:
        """Put a better sentence in the place of an earlier one, so that a display which has told it will not again."""
        better = Moment(at, text, moment.mood if moment else "good")
        place = self.story.index(moment) if moment else len(self.story)
        self.story[place : place + 1] = [better]
        return better


@dataclass(frozen=True, slots=True)
class Sum:
    """The figures of some files together, as the jobs or the recount have them."""

    files: int
    lines: int
    definitions: int
    imports: int
    not_parsed: int


@dataclass(frozen=True, slots=True)
class Kill:
    """The fault and what came of it. Times are seconds after the kill.

    Attributes:
        worker: The worker that was killed.
        pid: Its process.
        at_percent: How many of the file jobs were completed by then, in per cent.
        held: Jobs that it held.
        started: Those of them that it had begun to run, by the run log.
        back_after: When the first of them ran again; None when none did.
        recovered_after: When the last of them had completed elsewhere; None when not all of them did.
    """

    worker: str
    pid: int
    at_percent: float
    held: int
    started: int = 0
    back_after: float | None = None
    recovered_after: float | None = None


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The end of the demonstration.

    Attributes:
        ok: Whether every number adds up; if not, `differences` says which do not.
        what: Which files were counted.
        jobs: File jobs.
        fan_in_jobs: Jobs that added up packages, and the report.
        counted: The figures of the report that the last job made.
        recounted: The same figures, from one process without a queue.
        packages: How many there are.
        longest: The longest functions.
        not_parsed: Files that are no Python of this version, with the reason.
        kill: The fault; None when there was no chance for it.
        lost: Jobs that were accepted and have no result.
        twice: Jobs that ran more than once, by the reason.
        throughput: Jobs completed a second, from the first start to the last completion.
        jobs_seconds: The time between the two.
        seconds: The whole demonstration.
        recount_seconds: The recount.
        pool_most: Most connections of this process's pool at any look.
        pool_waited: Most calls that waited for a connection at any look.
        worker_connections_most: Most connections of one worker at any look.
        memory_most_bytes: Most memory of all processes together at any look, server included.
        server: Product and version.
        story: What happened when.
    """

    ok: bool
    differences: list[str]
    what: str
    jobs: int
    fan_in_jobs: int
    packages: int
    counted: Sum
    recounted: Sum
    longest: list[Function]
    not_parsed: dict[str, str]
    kill: Kill | None
    lost: int
    twice: dict[str, int]
    throughput: float
    jobs_seconds: float
    seconds: float
    recount_seconds: float
    pool_most: int
    pool_waited: int
    worker_connections_most: int
    memory_most_bytes: int
    server: str
    story: list[Moment]
