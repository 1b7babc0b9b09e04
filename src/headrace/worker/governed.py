"""A running worker as the memory governor sees it: held back, let go, asked what it runs."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Final

from headrace.memory.process import governor
from headrace.worker.footprint import Footprints

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.worker.running import Running
    from headrace.worker.worker import Worker

#: Jobs that are named to others.
NAMED: Final = 10


class Governed:
    """Connect one running worker with the governor of its process.

    Args:
        worker: The worker.
        parts: What runs in it.
    """

    def __init__(self, worker: Worker, parts: Running) -> None:
        self._worker = worker
        self._parts = parts
        self.governor = governor()
        self._footprints = Footprints(
            parts.runners.values(), parts.slots.running, self.job_processes, self.governor.leaks
        )
        self._attached = False
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Let the governor hold the worker back, and set the collector for it."""
        self._attached = True
        self.governor.attach(self)

    def close(self) -> None:
        """Leave the governor, before the worker stops: it is held back no more."""
        if self._attached:
            self._attached = False
            self.governor.detach(self)

    def looked(self) -> None:
        """Let the governor do what waits for a moment between two batches; called after each round trip."""
        if self.governor.wants_calm and self._attached:
            self.governor.calm()

    @property
    def concurrency(self) -> int:
        """Slots that the worker has."""
        return self._worker.concurrency

    @property
    def is_idle(self) -> bool:
        """Whether it runs and holds no job."""
        return not self._parts.slots.running and not self._parts.slots.buffer

    @property
    def is_calm(self) -> bool:
        """Whether everything that runs waits for something."""
        return not self._parts.slots.buffer

    def restrain(self, slots: int | None) -> None:
        """Use no more slots than this, None for all that it has."""
        self._call(lambda: self._parts.retuning.restrain(slots))

    def stop_taking(self) -> None:
        """Take no more jobs, and hand back what has not started."""
        self._call(lambda: self._parts.take(on=False))

    def resume_taking(self) -> None:
        """Take jobs again."""
        self._call(lambda: self._parts.take(on=True))

    def job_processes(self) -> list[int]:
        """Return the process ids of the children that run jobs."""
        return self._parts.processes.pids()

    def running_jobs(self) -> list[str]:
        """Return task and id of some of the jobs that it runs."""
        return [f"{attempt.task} {attempt.id}" for attempt in islice(self._parts.slots.running, NAMED)]

    def arm(self, *, often: bool) -> None:
        """Look at what memory does around the next job of each task."""
        self._call(lambda: self._footprints.arm(often=often))

    def _call(self, act: Callable[[], None]) -> None:
        """Act on the loop of the worker, which may not be the one that the governor is driven by."""
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - documented, and raises nothing where none runs
            act()
            return

        def later() -> None:
            # Why: the worker may have been told to stop meanwhile, and must not take jobs again then.
            if self._attached:
                act()

        # A loop that is closed has no worker any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(later)
