"""What memory does around a job: read before and after the few jobs that are looked at, at no cost for all others.

A task is armed by putting another way of making its next coroutine in place of the usual one; the first job takes it
out again. So an unarmed task costs not even a comparison.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headrace.memory.probes import read_allocated, read_blocks, read_peak, read_peak_of, read_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Iterable

    from headrace.memory.leaks import Leaks
    from headrace.worker.attempt import Attempt
    from headrace.worker.runners import Runner

#: Tasks that are armed at once, in turn; the others follow with the next readings.
ARMED: Final = 32
#: What a block of the interpreter's allocator is taken for, bytes; they are from 16 to 512.
BLOCK_BYTES: Final = 64
#: Least time between two jobs of one task that are looked at when it is done often, seconds.
OFTEN: Final = 0.05


class Look(NamedTuple):
    """What was used at one moment, in bytes.

    Attributes:
        size: Resident size.
        peak: The largest that it ever was.
        blocks: Blocks of the interpreter's allocator.
        held: What the allocators have handed out; the resident size where the C library cannot say.
        beside: Jobs that run and wait for something.
    """

    size: int
    peak: int
    blocks: int
    held: int
    beside: int


class Footprints:
    """Arm the tasks of one worker.

    Args:
        runners: Those of all its tasks.
        running: The jobs that run and wait for something.
        job_processes: Returns the process ids of the children that run jobs.
        leaks: Takes the samples.
    """

    def __init__(
        self,
        runners: Iterable[Runner],
        running: Collection[Attempt],
        job_processes: Callable[[], Iterable[int]],
        leaks: Leaks,
    ) -> None:
        self._runners = list(runners)
        self._running = running
        self._job_processes = job_processes
        self._leaks = leaks
        self._turn = 0
        self._often = False
        self._next_at = 0.0
        # Why: the first reading loads what it needs, which shall not be in the middle of jobs.
        _ = read_allocated()

    def arm(self, *, often: bool) -> None:
        """Look at the next job of each task; `often`, also at jobs after it, up to 20 a second."""
        self._often = often
        count = len(self._runners)
        for at in range(min(ARMED, count)):
            self._runners[(self._turn + at) % count].follow_next(self._follow)
        self._turn = (self._turn + ARMED) % max(1, count)

    def _follow(self, runner: Runner, coroutine: Coroutine[Any, Any, Any], attempt: Attempt) -> Followed:
        return Followed(self, runner, coroutine, attempt)

    def read(self, runner: Runner) -> Look:
        """Read what is used now: by this process, or by those that run jobs."""
        if runner.task.options.process:
            pids = list(self._job_processes())
            size = sum(read_usage(pid).resident for pid in pids)
            return Look(size, sum(map(read_peak_of, pids)), 0, size, len(self._running))
        size, blocks = read_usage().resident, read_blocks()
        allocated = read_allocated()
        held = size if allocated is None else allocated + blocks * BLOCK_BYTES
        return Look(size, read_peak(), blocks, held, len(self._running))

    def end(self, runner: Runner, attempt: Attempt, before: Look) -> None:
        """Read what is used after a job, and keep the difference."""
        now = self.read(runner)
        # Why: a job that never waited ran alone, whatever else there was; one that waited is among those that run.
        together = max(before.beside + 1, now.beside) if attempt in self._running else 1
        if runner.task.options.process and not before.size:
            # A child was started for the job, and its start is none of the job's growth.
            return
        needed = max(now.size, now.peak if now.peak > before.peak else 0) - before.size
        self._leaks.add(
            runner.task.name, growth_bytes=now.held - before.held, growth_blocks=now.blocks - before.blocks,
            footprint_bytes=needed, together=together,
        )  # fmt: skip
        at = time.monotonic()
        if self._often and at >= self._next_at:
            self._next_at = at + OFTEN
            runner.follow_next(self._follow)


class Followed:
    """The coroutine of a job that is looked at; it is driven, awaited and closed as the one inside."""

    __slots__ = ("_attempt", "_before", "_coroutine", "_footprints", "_runner")

    def __init__(
        self, footprints: Footprints, runner: Runner, coroutine: Coroutine[Any, Any, Any], attempt: Attempt
    ) -> None:
        self._footprints = footprints
        self._runner = runner
        self._coroutine = coroutine
        self._attempt = attempt
        self._before: Look | None = None

    def send(self, value: Any) -> Any:
        """Go on; the first time, read before."""
        if self._before is None:
            self._before = self._footprints.read(self._runner)
        try:
            return self._coroutine.send(value)
        except BaseException:
            self._end()
            raise

    def throw(self, *error: Any) -> Any:
        """Raise an exception inside."""
        try:
            return self._coroutine.throw(*error)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """End it before its end; nothing is kept of it."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Run it inside another coroutine, such as that of a middleware."""
        self._before = self._footprints.read(self._runner)
        try:
            return (yield from self._coroutine.__await__())
        finally:
            self._end()

    def _end(self) -> None:
        if self._before is not None:
            self._footprints.end(self._runner, self._attempt, self._before)
