"""What `headrace top` looks at: queues with their rates, processes that answered, and those that did not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.cli.queues import count_served
from headrace.fleet.snapshot import Snapshot, total_counts

if TYPE_CHECKING:
    from collections import Counter

    from headrace.app import Headrace
    from headrace.queue import QueueStats

#: Queues that are looked at in one view, the busiest come first in it.
QUEUES: Final = 1_000


class QueueRow(msgspec.Struct, frozen=True):
    """One queue; rates are a second, between the last two looks.

    Attributes:
        name: Its name.
        paused: Whether it is.
        waiting: Jobs that could run now.
        delayed: Jobs that are not due yet.
        active: Jobs that a worker holds.
        failed: Dead jobs that are kept.
        workers: Workers that hold jobs of it.
        done_rate: Jobs completed.
        retried_rate: Attempts that failed and are tried again.
        stalled_rate: Jobs taken back from lost workers.
        arriving_rate: Jobs that came, as far as it can be told from those that went.
        oldest_ms: Age of the oldest waiting job.
        served: Live workers that serve it.
    """

    name: str
    paused: bool
    waiting: int
    delayed: int
    active: int
    failed: int
    workers: int
    done_rate: float
    retried_rate: float
    stalled_rate: float
    arriving_rate: float
    oldest_ms: int
    served: int


class SilentWorker(msgspec.Struct, frozen=True):
    """A worker that is in the registry, and whose process did not answer; `seen` is seconds ago."""

    worker: str
    host: str
    pid: int
    seen: float


class View(msgspec.Struct, frozen=True):
    """Everything at one moment.

    Attributes:
        server: Where the server is, without credentials.
        at: Unix time.
        queues: Those that were ever used, the busiest first.
        processes: Those that answered, the command itself left out.
        silent: Workers that should have, and did not.
        counts: What is live in all processes together, by kind.
    """

    server: str
    at: float
    queues: list[QueueRow]
    processes: list[Snapshot]
    silent: list[SilentWorker]
    counts: dict[str, int]

    def find(self, process: str) -> Snapshot | None:
        """Return the process with this id, as PID or HOST:PID."""
        host, _, pid = process.rpartition(":")
        for one in self.processes:
            if one.pid == int(pid) and host in ("", one.host):
                return one
        return None

    def narrowed(self, process: str | None) -> object:
        """Return this view, or one process of it in full, or all; a process that is gone is None."""
        if process == "all":
            return self
        if process is not None:
            return self.find(process)
        return msgspec.structs.replace(
            self,
            processes=[msgspec.structs.replace(one, census=[], duties=[], subscribers=[]) for one in self.processes],
        )


class Looks:
    """Look at the fleet again and again, and compute rates between two looks.

    Args:
        app: The open app of the command.
    """

    def __init__(self, app: Headrace) -> None:
        self._app = app
        self._before: dict[str, QueueStats] = {}
        self._looked_at = 0.0

    async def look(self, wait: float) -> View:
        """Ask the server and every process.

        Args:
            wait: Seconds that processes get to answer.

        Raises:
            ConnectionLost: The server could not be reached.
        """
        app = self._app
        workers = await app.fleet.workers()
        queues, shown = await asyncio.gather(self._queues(count_served(workers)), app.fleet.look(wait=wait))
        processes = sorted((one for one in shown if one.app != app.id), key=lambda one: (one.host, one.pid))
        answered = {(one.host, one.pid) for one in processes}
        now = time.time()
        silent = [
            SilentWorker(name, facts.host, facts.pid, max(0.0, round(now - facts.seen, 1)))
            for name, facts in workers.items()
            if (facts.host, facts.pid) not in answered
        ]
        return View(str(app.pool.address), now, queues, processes, silent, dict(total_counts(processes)))

    async def _queues(self, served: Counter[str]) -> list[QueueRow]:
        queues = (await self._app.queues())[:QUEUES]
        # Why: all questions travel together on one connection.
        stats = await asyncio.gather(*(queue.stats() for queue in queues))
        now = time.monotonic()
        seconds = now - self._looked_at
        found = {queue.name: one for queue, one in zip(queues, stats, strict=True)}
        rows = [_row(name, one, self._before.get(name), seconds, served[name]) for name, one in found.items()]
        self._before, self._looked_at = found, now
        return sorted(rows, key=lambda row: (-row.done_rate, -row.waiting - row.active, row.name))


def _row(name: str, now: QueueStats, before: QueueStats | None, seconds: float, served: int) -> QueueRow:
    def rate(change: int) -> float:
        return round(max(0, change) / seconds, 2)

    if before is None:
        done, retried, stalled, arriving = now.throughput, 0.0, 0.0, 0.0
    else:
        done = rate(now.completed - before.completed)
        retried, stalled = rate(now.retried - before.retried), rate(now.stalled - before.stalled)
        left = (now.completed - before.completed) + max(0, now.failed - before.failed)
        grown = sum(getattr(now, part) - getattr(before, part) for part in ("waiting", "delayed", "active"))
        arriving = rate(left + grown)
    return QueueRow(
        name, now.paused, now.waiting, now.delayed, now.active, now.failed, now.workers,
        round(done, 2), retried, stalled, arriving, now.oldest_ms if now.waiting else 0, served,
    )  # fmt: skip
