"""Which tasks memory grows with: what a process used before and after a few of their jobs, a fixed number of samples.

A job is only looked at when its task is armed, a few times a minute, so that jobs cost nothing otherwise. What grew
while several jobs ran is split evenly among them: with many at once the figures rank tasks, and measure none of them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

#: Samples kept of each task, and tasks of which any are kept.
SAMPLES: Final = 64
#: Four figures of each of them, and the objects around them, bytes.
TASK_BYTES: Final = 4 * 8 * SAMPLES + 1_024
TASKS: Final = 256
#: Samples below which a task is not suspected; growth below which it is not, bytes a job, and as a share of the most.
ENOUGH: Final = 3
NOTICEABLE: Final = 1_024
NEAR: Final = 0.05


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """What memory did around the jobs of one task that were looked at.

    Attributes:
        task: Name of the task.
        samples: Jobs that were looked at since the start.
        growth_bytes: Growth that a job left behind, the mean of the latest samples: of what the allocators have handed
            out, or of the resident size where the C library cannot say.
        growth_blocks: The same in blocks of the interpreter's allocator, which shows what is too small for a page.
        footprint_bytes: What a job needed beyond what was there, the 95th percentile of the latest samples.
        footprint_largest_bytes: The largest of these since the start.
        together: Jobs that ran at the same time, the mean of the latest samples; 1.0 when each ran alone.
    """

    task: str
    samples: int
    growth_bytes: int
    growth_blocks: int
    footprint_bytes: int
    footprint_largest_bytes: int
    together: float


class _Samples:
    """The latest samples of one task: four numbers each."""

    __slots__ = ("blocks", "count", "footprint", "growth", "largest", "together")

    def __init__(self) -> None:
        self.growth, self.blocks, self.footprint, self.together = (array("q", bytes(8 * SAMPLES)) for _ in range(4))
        self.count = 0
        self.largest = 0

    def add(self, growth: int, blocks: int, footprint: int, together: int) -> None:
        at = self.count % SAMPLES
        self.growth[at], self.blocks[at], self.footprint[at], self.together[at] = growth, blocks, footprint, together
        self.count += 1
        self.largest = max(self.largest, footprint)

    def read(self, task: str) -> TaskMemory:
        held = min(self.count, SAMPLES)
        footprints = sorted(self.footprint[:held])
        return TaskMemory(
            task,
            self.count,
            round(sum(self.growth[:held]) / held),
            round(sum(self.blocks[:held]) / held),
            footprints[min(held - 1, int(held * 0.95))],
            self.largest,
            round(sum(self.together[:held]) / held, 2),
        )


class Leaks:
    """The samples of all tasks. Those of a task beyond the 256th take the place of the one sampled longest ago."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Samples] = {}

    def add(self, task: str, *, growth_bytes: int, growth_blocks: int, footprint_bytes: int, together: int) -> None:
        """Add what one job did.

        Args:
            task: Name of its task.
            growth_bytes: What was held after it less what was held before it.
            growth_blocks: The same in blocks of the allocator.
            footprint_bytes: Most that was used meanwhile less what was used before.
            together: Jobs that ran at the same time, itself included.
        """
        # Why: the order is that of the latest samples, so that the first is the one to give up.
        samples = self._tasks.pop(task, None) or _Samples()
        if len(self._tasks) >= TASKS:
            del self._tasks[next(iter(self._tasks))]
        self._tasks[task] = samples
        share = max(1, together)
        samples.add(growth_bytes // share, growth_blocks // share, max(0, footprint_bytes) // share, share)

    def tasks(self) -> list[TaskMemory]:
        """Return the figures of every task, those that grew most first."""
        found = [samples.read(task) for task, samples in self._tasks.items()]
        return sorted(found, key=lambda task: (task.growth_bytes, task.growth_blocks), reverse=True)

    def suspects(self, most: int = 3) -> list[TaskMemory]:
        """Return the tasks whose jobs left most behind: those near the first, and none that hardly left anything."""
        found = [task for task in self.tasks() if task.samples >= ENOUGH and task.growth_bytes >= NOTICEABLE]
        return [task for task in found if task.growth_bytes >= NEAR * found[0].growth_bytes][:most]

    @property
    def size_bytes(self) -> int:
        """What the samples hold now."""
        return len(self._tasks) * TASK_BYTES

    @property
    def limit_bytes(self) -> int:
        """What the samples hold at most."""
        return TASKS * TASK_BYTES
