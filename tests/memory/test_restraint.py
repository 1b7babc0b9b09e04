"""When a process asks for another one in its place: not where that would help nobody, and it says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.memory.growth import Slope
from headrace.memory.limits import MIB, Limit
from headrace.memory.reading import Reading
from headrace.memory.restraint import ASK_AGAIN, MOST_QUICK, Restraint
from headrace.memory.steps import Step, Thresholds

if TYPE_CHECKING:
    from headrace.memory.restraint import Plea

BUDGET = 1_000 * MIB
LIMIT = Limit(BUDGET, "setting", 1, BUDGET, None, ())
THRESHOLDS = Thresholds.of(80)
FLAT = Slope(0.0, 0.0, 0.0, 12, 12.0)
GROWING = Slope(10.0 * MIB, 9.0 * MIB, 11.0 * MIB, 12, 12.0)
FULL = "memory is full"


def read(at: float, used_mb: int) -> Reading:
    used = used_mb * MIB
    return Reading(at, used, used, 0, used / BUDGET, "budget", LIMIT)


class Scene:
    """A process that began with 100 MB, and what it asks for."""

    def __init__(self, quick: int = 0, began_mb: int = 100) -> None:
        self.pleas: list[Plea] = []
        self.restraint = Restraint()
        self.restraint.replace = self.pleas.append
        self.restraint.baseline = read(0.0, began_mb)
        self.restraint.quick = quick

    def follow(self, reading: Reading, growth: Slope) -> None:
        self.restraint.follow(reading, Step.CRITICAL, THRESHOLDS, growth)


@pytest.mark.parametrize(("quick", "growth"), [(0, FLAT), (MOST_QUICK - 1, FLAT), (MOST_QUICK, GROWING)])
def test_a_process_that_may_be_better_off_anew_asks_at_once(quick: int, growth: Slope) -> None:
    scene = Scene(quick)

    scene.follow(read(3.0, 970), growth)

    assert len(scene.pleas) == 1


def test_what_never_fits_is_replaced_twice_and_then_every_five_minutes(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(MOST_QUICK)

    for second in range(1, round(ASK_AGAIN)):
        scene.follow(read(second, 970), FLAT)
    early = list(scene.pleas)
    scene.follow(read(ASK_AGAIN, 970), FLAT)

    assert early == []
    assert len(scene.pleas) == 1
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith(FULL)]
    assert "soon after each start" in line
    assert "Raise HEADRACE_MEMORY_LIMIT" in line


def test_a_process_whose_limit_is_too_small_from_its_start_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(began_mb=940)

    for second in range(1, 100):
        scene.follow(read(second, 970), FLAT)

    assert scene.pleas == []
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith(FULL)]
    assert "no better off" in line


def test_a_plea_says_what_the_next_process_needs_from_its_start() -> None:
    scene = Scene()

    scene.follow(read(3.0, 970), FLAT)

    assert [plea.needs_bytes for plea in scene.pleas] == [100 * MIB]
