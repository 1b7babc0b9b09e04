"""What is said about memory: changes of the step, growth that is rapid, a leak that is suspected, memory that is held.

Each is said once when it begins, as an event of every app of the process and as a line in the log, and not again before
some time has passed: a figure that trembles makes no noise.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from headrace.memory.limits import MIB
from headrace.memory.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.memory.growth import Series, Slope
    from headrace.memory.holders import Holder
    from headrace.memory.leaks import Leaks
    from headrace.memory.reading import Reading

logger = logging.getLogger(__name__)

#: Growth is rapid when a minute of it takes this share of the budget, and at least so many bytes.
RAPID: Final = 0.10
RAPID_LEAST_BYTES: Final = 16 * MIB
#: Least points of the lasting slope, and share of the budget that it must have taken, for a suspicion.
LEAK_POINTS: Final = 8
LEAK: Final = 0.05
#: Least time between two alerts of the same kind, seconds.
AGAIN: Final = 300.0


class Alerts:
    """Say what there is to say about memory.

    Args:
        publish: Publishes an event to every app of the process.

    Attributes:
        is_rapid: Memory grows rapidly.
        is_leaking: A leak is suspected.
    """

    def __init__(self, publish: Callable[..., None]) -> None:
        self._publish = publish
        self._said_at: dict[str, float] = {}
        self.is_rapid = False
        self.is_leaking = False

    def step(self, before: Step, after: Step, reading: Reading, growth: Slope, done: str) -> None:
        """Say that the step changed."""
        if after is before:
            return
        facts = {
            "used_mb": reading.used_bytes // MIB,
            "budget_mb": reading.limit.budget_bytes // MIB,
            "share_percent": round(100 * reading.share, 1),
            "gauge": reading.gauge,
            "limit": str(reading.limit),
            "growth_bytes_per_second": round(growth.value),
        }
        if after > before:
            self._publish(f"memory.{after.word}", former=before.word, action=done, **facts)
            level = logging.WARNING if after < Step.CRITICAL else logging.ERROR
            text = f"memory is {after.word}"
        else:
            if after is Step.NORMAL:
                self._publish("memory.recovered", former=before.word, **facts)
            level, text = (
                logging.INFO,
                "memory is back to normal" if after is Step.NORMAL else f"memory is {after.word}",
            )
        logger.log(level, text, extra={**facts, "former": before.word, **({"action": done} if done else {})})

    def growth(self, reading: Reading, series: Series, recent: Slope, leaks: Leaks) -> None:
        """Look at how memory grows, and say what is new about that."""
        budget = reading.limit.budget_bytes
        rapid = recent.points >= LEAK_POINTS and recent.low * 60 >= max(RAPID * budget, RAPID_LEAST_BYTES)
        if rapid and not self.is_rapid and self._may_say("rapid", reading.at):
            self._say_growth("memory.rapid_growth", "memory grows rapidly", recent, leaks)
        self.is_rapid = rapid or (self.is_rapid and recent.grows)
        if not series.is_group_complete:
            return
        lasting = series.lasting()
        taken = lasting.value * lasting.seconds
        leaking = lasting.points >= LEAK_POINTS and lasting.grows and taken >= LEAK * budget
        if leaking and not self.is_leaking and self._may_say("leak", reading.at):
            self._say_growth("memory.leak_suspected", "memory leak suspected", lasting, leaks)
        self.is_leaking = leaking or (self.is_leaking and lasting.grows)

    def held(self, reading: Reading, holders: list[Holder], leaks: Leaks) -> None:
        """Say that attempts to free memory are given up, and what holds it."""
        held = [str(holder) for holder in holders]
        tasks = [f"{task.task}: {task.growth_bytes:,} bytes a job" for task in leaks.suspects()]
        self._publish("memory.held", used_mb=reading.used_bytes // MIB, holders=tuple(held), tasks=tuple(tasks))
        logger.error(
            "memory is held, not garbage; freeing is given up. Look at what holds it, or raise the limit",
            extra={"used_mb": reading.used_bytes // MIB, "holders": "; ".join(held), "tasks": "; ".join(tasks)},
        )

    def _say_growth(self, event: str, text: str, slope: Slope, leaks: Leaks) -> None:
        suspects = leaks.suspects()
        facts = {
            "bytes_per_second": round(slope.value),
            "at_least": round(slope.low),
            "seconds": round(slope.seconds),
            "points": slope.points,
        }
        self._publish(event, **facts, tasks=tuple(task.task for task in suspects))
        tasks = "; ".join(f"{task.task}: {task.growth_bytes:,} bytes a job" for task in suspects)
        logger.warning(text, extra={**facts, "tasks": tasks})

    def _may_say(self, what: str, now: float) -> bool:
        last = self._said_at.get(what)
        if last is not None and now - last < AGAIN:
            return False
        self._said_at[what] = now
        return True
