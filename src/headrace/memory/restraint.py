"""The workers of a process under its memory: how many slots they may use, when they stop taking, who is replaced.

A worker is held back and let go in small steps. A process is only replaced when somebody can start another one, and
when a new one would be better off: what the process needed from its start must fit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from headrace.memory.growth import NO_SLOPE
from headrace.memory.steps import Step, plan_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.memory.growth import Slope
    from headrace.memory.reading import Reading
    from headrace.memory.steps import Thresholds

logger = logging.getLogger(__name__)

#: A process that asked to be replaced and was not takes jobs again after this long, and asks again after as long as
#: lies between attempts to free memory, seconds.
PATIENCE: Final = 90.0
ASK_AGAIN: Final = 300.0
#: A process whose workers are down to one slot for so long in the step high is replaced too, seconds: it holds what it
#: has, and would stay as slow as that.
STUCK: Final = 30.0
#: Share of its budget that a process must have grown by before another one in its place is any better.
GROWN: Final = 0.10
#: A process that asks sooner than this after its start used up its memory quickly, seconds.
QUICK: Final = 60.0
#: So many processes in a row that did so, and what they needed does not fit: the next one is replaced only while it
#: grows, by at least this share of its budget a minute, or after `ASK_AGAIN`.
MOST_QUICK: Final = 2
GROWS: Final = 0.01
#: Points that show whether it does.
GROWS_POINTS: Final = 8


class Restrained(Protocol):
    """A worker, as far as memory is concerned; any thread may call, and what acts does so on the worker's own loop."""

    @property
    def concurrency(self) -> int:
        """Slots that it has."""

    @property
    def is_idle(self) -> bool:
        """Whether it runs and holds no job."""

    @property
    def is_calm(self) -> bool:
        """Whether no batch of jobs is being run: what it runs waits for something."""

    def restrain(self, slots: int | None) -> None:
        """Use no more slots than this, None for all that it has."""

    def stop_taking(self) -> None:
        """Take no more jobs, and hand back what has not started."""

    def resume_taking(self) -> None:
        """Take jobs again."""

    def job_processes(self) -> Iterable[int]:
        """Return the process ids of its children that run jobs."""

    def running_jobs(self) -> list[str]:
        """Return task and id of some of the jobs that it runs."""

    def arm(self, *, often: bool) -> None:
        """Look at what memory does around the next job of each task; `often`, also around those after it."""


@dataclass(frozen=True, slots=True)
class Plea:
    """Why a process asks to be replaced, or lets its supervisor know how it stands.

    Attributes:
        step: The step of its memory.
        used_bytes: What it uses.
        budget_bytes: What it may use.
        jobs: Task and id of some of the jobs that it runs.
        needs_bytes: What another one in its place needs from its start.
    """

    step: Step
    used_bytes: int
    budget_bytes: int
    jobs: tuple[str, ...]
    needs_bytes: int = 0


class Restraint:
    """Hold back the workers of this process.

    Attributes:
        workers: Each with the slots that it may use.
        asked_at: When the replacement was asked for, None when it was not.
        replaced_total: How often it was asked for.
        quick: How many processes in a row before this one used up their memory quickly.
    """

    def __init__(self) -> None:
        self.workers: dict[Restrained, int] = {}
        self.asked_at: float | None = None
        self.replaced_total = 0
        self.replace: Callable[[Plea], None] | None = None
        self.baseline: Reading | None = None
        self.quick = 0
        self._next_ask = float("-inf")
        self._stopped = False
        self._is_told = False
        self._stuck_since: float | None = None
        #: Workers that have fewer slots than they want.
        self._held: set[Restrained] = set()

    @property
    def is_idle(self) -> bool:
        """Whether no worker runs or holds a job."""
        return all(worker.is_idle for worker in list(self.workers))

    @property
    def is_calm(self) -> bool:
        """Whether no worker is in the middle of a batch."""
        return all(worker.is_calm for worker in list(self.workers))

    def attach(self, worker: Restrained) -> None:
        """Hold back this worker too from now on."""
        self.workers[worker] = worker.concurrency

    def detach(self, worker: Restrained) -> None:
        """Forget a worker that stops."""
        self.workers.pop(worker, None)
        self._held.discard(worker)

    def job_processes(self) -> list[int]:
        """Return the children of all workers that run jobs."""
        return [pid for worker in list(self.workers) for pid in worker.job_processes()]

    def jobs(self) -> tuple[str, ...]:
        """Return task and id of some of the jobs that run."""
        return tuple(job for worker in list(self.workers) for job in worker.running_jobs())[:20]

    def follow(self, reading: Reading, step: Step, thresholds: Thresholds, growth: Slope = NO_SLOPE) -> str:
        """Act on the step of a reading; returns what was done, for the log, or nothing.

        Args:
            reading: The reading.
            step: Its step.
            thresholds: Where steps begin.
            growth: How memory grew by the latest readings.
        """
        said = self._limit_slots(step)
        self._is_told = self._is_told and step > Step.NORMAL
        is_due = step is Step.CRITICAL or self._is_stuck(reading.at, step)
        if is_due and self._may_replace(reading, thresholds, growth):
            return self._ask(reading, step)
        if self._stopped and (step < Step.HIGH or (self.asked_at or 0.0) + PATIENCE < reading.at):
            self._stopped, self.asked_at = False, None
            for worker in list(self.workers):
                worker.resume_taking()
            return "jobs are taken again"
        return said

    def would_help(self, reading: Reading, thresholds: Thresholds) -> bool:
        """Tell whether a new process in the place of this one would be better off."""
        base = self.baseline
        if base is None or reading.gauge == "cgroup":
            # Why: in a full control group the others may be the cause, and a second process makes it fuller.
            has_grown = base is not None and reading.used_bytes - base.used_bytes >= GROWN * reading.limit.budget_bytes
            return has_grown and reading.used_bytes >= thresholds.elevated * reading.limit.budget_bytes
        fresh = reading.own_share(base.used_bytes, base.virtual_bytes)
        return fresh < thresholds.elevated - thresholds.margin and reading.share - fresh >= GROWN

    def _is_stuck(self, now: float, step: Step) -> bool:
        if step is not Step.HIGH or any(slots > 1 for slots in self.workers.values()):
            self._stuck_since = None
            return False
        if self._stuck_since is None:
            self._stuck_since = now
        return now - self._stuck_since >= STUCK

    def _may_replace(self, reading: Reading, thresholds: Thresholds, growth: Slope) -> bool:
        if self.replace is None or self.asked_at is not None or reading.at < self._next_ask:
            return False
        if not self.would_help(reading, thresholds):
            self._tell("memory is full, and a new process would be no better off", reading)
            return False
        if self._is_futile(reading, growth):
            self._tell("memory is full soon after each start, and does not grow: what jobs need does not fit", reading)
            return False
        return True

    def _is_futile(self, reading: Reading, growth: Slope) -> bool:
        """Tell whether the processes before this one soon were where it is, so that the next one would soon be."""
        if self.quick < MOST_QUICK or self.baseline is None or reading.at - self.baseline.at >= ASK_AGAIN:
            return False
        grows = growth.points >= GROWS_POINTS and growth.low * 60 >= GROWS * reading.limit.budget_bytes
        return not grows

    def _tell(self, text: str, reading: Reading) -> None:
        """Say once why this process goes on with one slot."""
        if not self._is_told:
            self._is_told = True
            logger.error(
                f"{text}; it goes on with one slot. Raise HEADRACE_MEMORY_LIMIT, or run fewer processes or slots",  # noqa: G004 - one of two texts
                extra={"used_mb": reading.used_bytes >> 20, "limit": str(reading.limit), "quick": self.quick},
            )

    def plea(self, reading: Reading, step: Step) -> Plea:
        """Say how this process stands."""
        needs = 0 if self.baseline is None else self.baseline.used_bytes
        return Plea(step, reading.used_bytes, reading.limit.budget_bytes, self.jobs(), needs)

    def _ask(self, reading: Reading, step: Step) -> str:
        plea = self.plea(reading, step)
        self._stopped = True
        for worker in list(self.workers):
            worker.stop_taking()
        self.asked_at = reading.at
        self._next_ask = reading.at + ASK_AGAIN
        self.replaced_total += 1
        if self.replace is not None:
            self.replace(plea)
        return "no more jobs are taken, and another process is asked for"

    def _limit_slots(self, step: Step) -> str:
        said = ""
        for worker, allowed in list(self.workers.items()):
            concurrency = worker.concurrency
            # Why: a worker that was given more slots than it had is not held back by that.
            if step < Step.HIGH and (allowed >= concurrency or worker not in self._held):
                self.workers[worker] = concurrency
                continue
            slots = plan_slots(allowed, concurrency, step)
            if slots != allowed:
                self.workers[worker] = slots
                worker.restrain(slots if slots < concurrency else None)
                (self._held.add if slots < concurrency else self._held.discard)(worker)
                said = f"{slots} of {concurrency} slots are used"
        return said
