"""A worker: reserves jobs of its queues, runs them in its slots, settles them, and gives back what it cannot finish.

This file is its face; its parts are wired in `headrace.worker.running`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from headrace.errors import OptionError, UsageError
from headrace.ids import random_name
from headrace.options import check_seconds, check_whole
from headrace.store.store import check_queue_name
from headrace.worker.running import Running, WorkerStats
from headrace.worker.signals import WorkerSignals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.health.verdict import WorkerState
    from headrace.worker.host import Host


class Worker:
    """Run jobs of some queues.

    Args:
        host: The app.
        queues: Names with the most slots each may use, None for no limit of its own.
        concurrency: Slots, 1..10000; None: the setting QUEUE_CONCURRENCY, also when it changes.
        grace: Time that running jobs get when the worker stops, seconds; None: the setting HEADRACE_GRACE.
        burst: Stop as soon as no job of its queues is left that is due.

    Raises:
        OptionError: A value is out of its bounds.
    """

    def __init__(
        self,
        host: Host,
        queues: Mapping[str, int | None],
        concurrency: int | None,
        *,
        grace: float | None = None,
        burst: bool = False,
    ) -> None:
        given = host.settings.queue_concurrency if concurrency is None else concurrency
        self.concurrency = check_whole("concurrency", given, 1, 10_000)
        #: Whether the slots are those of the settings.
        self.follows_settings = concurrency is None
        self._grace = grace
        self.grace = host.settings.grace if grace is None else check_seconds("grace", grace, high=3600.0)
        if not queues:
            raise OptionError("A worker needs at least one queue. Pass queues=['default'].")
        for name, limit in queues.items():
            check_queue_name(name)
            if limit is not None:
                check_whole(f"slots of queue '{name}'", limit, 1, 10_000)
        self.id = random_name(10)
        self.queues = dict(queues)
        self.burst = burst
        self.signals = WorkerSignals()
        self._host = host
        self._parts: Running | None = None
        self._stop_wanted: asyncio.Event | None = None
        self._hard = False
        self._final: WorkerStats | None = None
        self._failure: Exception | None = None

    async def run(self) -> WorkerStats:
        """Run until `stop` is called, the call is cancelled, or, with `burst`, nothing is left to do.

        Returns:
            What the worker did.

        Raises:
            UsageError: It runs already.
            ConnectionLost: The server could not be reached at the start.
            CommandRefused: The server refused the connection, then or after a break.
            Exception: A part of the worker failed, which is a fault of this package; the worker has ended.

        Running jobs get the grace to finish; what is left is handed back without burning an attempt. Cancelling the
        call does the same with no grace.
        """
        if self._parts is not None or self._stop_wanted is not None:
            raise UsageError(f"worker {self.id} runs already, or ran before. Make a new one with app.worker(...).")
        self._stop_wanted = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._host)
            resources = await stack.enter_async_context(self._host.hooks.resources())
            self._read_settings()
            parts = self._parts = Running(self, self._host, resources)
            try:
                await parts.start()
                self.signals.started.set()
                await self._stop_wanted.wait()
            except asyncio.CancelledError:
                self._hard = True
                raise
            finally:
                await self._stop_parts(parts)
        if self._failure is not None:
            raise self._failure
        return self.stats()

    def _read_settings(self) -> None:
        """Take what the open app has learned of the settings of the fleet."""
        settings = self._host.settings
        if self.follows_settings:
            self.concurrency = settings.queue_concurrency
        if self._grace is None:
            self.grace = settings.grace

    async def _stop_parts(self, parts: Running) -> None:
        """Stop all parts whatever happens: a cancellation on the way ends the grace, and goes on when they are done."""
        grace = 0.0 if self._hard else self.grace
        stopping = self._host.census_book.create_task(parts.stop(grace), name="stop the worker", owner="worker")
        cancelled: asyncio.CancelledError | None = None
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError as error:
                cancelled = error
                parts.hurry()
        stopping.result()
        self._final = parts.stats()
        self._parts = None
        self.signals.stopped.set()
        if cancelled is not None:
            raise cancelled

    def stop(self, *, hard: bool = False) -> None:
        """Stop the worker: no further jobs, the grace for those that run; `hard` gives no grace."""
        if hard:
            self._hard = True
            if self._parts is not None:
                self._parts.hurry()
        if self._stop_wanted is not None:
            self._stop_wanted.set()

    def fail(self, error: Exception) -> None:
        """Stop the worker, since a part of it has ended, and let `run` raise the reason: no worker idles half dead."""
        if self._failure is None:
            self._failure = error
        self.stop()

    def stats(self) -> WorkerStats:
        """Return what the worker did and does."""
        if self._parts is not None:
            return self._parts.stats()
        return self._final or WorkerStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def lease_ages(self) -> dict[str, float]:
        """Return for how many seconds its leases have not been extended, by queue; it has one where it holds jobs."""
        return {} if self._parts is None else self._parts.leases.ages()

    @property
    def slots_allowed(self) -> int:
        """Slots that it may use now: fewer than its concurrency while memory is short, 0 when it does not run."""
        return 0 if self._parts is None else self._parts.slots.concurrency

    @property
    def is_running(self) -> bool:
        """Whether `run` was called and has not come to its end."""
        return self._stop_wanted is not None and self._final is None

    def state(self) -> WorkerState:
        """Say whether the worker is consuming: it takes jobs, or would if there were any; else why not."""
        # Why here: few ask, and it would cost each import of the package.
        from headrace.worker.readiness import describe  # noqa: PLC0415 - as said above

        return describe(self, self._parts)

    def __repr__(self) -> str:
        """Name the worker and its queues."""
        return f"<Worker {self.id} on {', '.join(self.queues)}>"
