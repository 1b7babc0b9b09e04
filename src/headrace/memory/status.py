"""What `app.memory.status()` returns: everything that is known of the memory of this process, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headrace.memory.actions import Effect
    from headrace.memory.collector import CollectorStats
    from headrace.memory.growth import Slope
    from headrace.memory.holders import Holder
    from headrace.memory.leaks import TaskMemory
    from headrace.memory.limits import Limit
    from headrace.memory.reading import Gauge
    from headrace.memory.steps import Thresholds

#: Actions that follow one another within so many seconds belong to one occasion.
ONE_OCCASION: Final = 1.0


@dataclass(frozen=True, slots=True)
class Buffer:
    """Something bounded that holds memory, of Headrace itself or registered with it.

    Attributes:
        name: What it is.
        size_bytes: What it holds now, None when it does not say.
        limit_bytes: What it holds at most, None when it does not say.
        can_release: Whether it is emptied when memory runs short.
    """

    name: str
    size_bytes: int | None
    limit_bytes: int | None
    can_release: bool


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """How a worker is held back.

    Attributes:
        concurrency: Slots that it has.
        allowed: Slots that it may use now.
    """

    concurrency: int
    allowed: int


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """The memory of this process at one moment; sizes are bytes.

    Attributes:
        enabled: Whether it is watched and acted on (MEMORY_OPTIMIZATION_ENABLED).
        step: `normal`, `elevated`, `high` or `critical`.
        share: How much of the tightest limit is used; 1.0 is all of it.
        gauge: Which limit that is: `budget`, `address space` or `cgroup`.
        used_bytes: Resident size of this process and of the children that run its jobs.
        child_bytes: The part of those children.
        proportional_bytes: Resident size of this process with shared pages counted by share (PSS), None where the
            system does not tell it.
        virtual_bytes: Address space of this process.
        peak_bytes: The largest resident size that this process ever had.
        allocated_blocks: Blocks that the interpreter's allocator has handed out.
        limit: What may be used, who says so, and all limits that were found.
        thresholds: Where the steps begin.
        growth: Slope of the latest readings, bytes a second.
        lasting_growth: Slope of what is left when passing needs are gone.
        rapid: Whether memory grows rapidly.
        leak_suspected: Whether it grows for so long and by so much that a leak is suspected.
        tasks: What memory did around jobs of each task, those that grew most first.
        collector: What the collector did and how it is set.
        buffers: What Headrace holds itself, and what was registered.
        effects: The latest actions with what each freed and took.
        held: Whether freeing was given up, as memory is held and no garbage.
        holders: What held it when that was found out.
        workers: How each worker of this process is held back.
        group_events: What the kernel counts of the control group.
        replacements_asked: How often this process asked to be replaced.
        predecessor: How the process ended that this one replaces, if it ran out of memory; else an empty text.
        readings: Readings so far.
        reading_cost: Seconds that one takes, the mean.
    """

    enabled: bool
    step: str
    share: float
    gauge: Gauge
    used_bytes: int
    child_bytes: int
    proportional_bytes: int | None
    virtual_bytes: int
    peak_bytes: int
    allocated_blocks: int
    limit: Limit
    thresholds: Thresholds
    growth: Slope
    lasting_growth: Slope
    rapid: bool
    leak_suspected: bool
    tasks: tuple[TaskMemory, ...]
    collector: CollectorStats
    buffers: tuple[Buffer, ...]
    effects: tuple[Effect, ...]
    held: bool
    holders: tuple[Holder, ...]
    workers: tuple[WorkerMemory, ...]
    group_events: dict[str, int]
    replacements_asked: int
    predecessor: str
    readings: int
    reading_cost: float

    @property
    def history_bytes(self) -> int:
        """What all of the buffers hold now that say so, in bytes."""
        return sum(buffer.size_bytes or 0 for buffer in self.buffers)

    @property
    def history_limit_bytes(self) -> int:
        """What those can hold at most that have a bound, in bytes."""
        return sum(buffer.limit_bytes or 0 for buffer in self.buffers)

    @property
    def optimizations(self) -> list[float]:
        """When memory was freed because it was short, Unix times; what was done on one occasion counts as one."""
        times = sorted({effect.at for effect in self.effects if effect.reason != "asked"})
        return [at for number, at in enumerate(times) if not number or at - times[number - 1] > ONE_OCCASION]


@dataclass(frozen=True, slots=True)
class Optimization:
    """What `app.memory.optimize()` did.

    Attributes:
        freed_bytes: Resident size before it less that after it; negative when it grew meanwhile.
        seconds: How long it stopped the process.
        effects: Each action with what it freed and took.
        holders: What holds most of what is left; only when asked to be aggressive.
    """

    freed_bytes: int
    seconds: float
    effects: tuple[Effect, ...]
    holders: tuple[Holder, ...]
