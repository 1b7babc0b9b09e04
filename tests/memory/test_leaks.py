"""Which task memory grows with: ranked, shared among jobs that ran together, and bounded."""

from __future__ import annotations

from headrace.memory.holders import find_holders, weigh
from headrace.memory.leaks import TASKS, Leaks

KEPT: list[bytes] = []


def add(leaks: Leaks, task: str, growth: int, *, together: int = 1, times: int = 5) -> None:
    for _ in range(times):
        leaks.add(task, growth_bytes=growth, growth_blocks=growth // 100, footprint_bytes=growth * 2, together=together)


def test_the_task_that_left_most_behind_comes_first() -> None:
    leaks = Leaks()
    add(leaks, "small", 80_000)
    add(leaks, "tiny", 4_096)
    add(leaks, "large", 1_000_000)
    add(leaks, "none", 0)
    add(leaks, "once", 9_000_000, times=1)

    suspects = leaks.suspects()

    assert [task.task for task in suspects] == ["large", "small"]
    assert suspects[0].growth_bytes == 1_000_000
    assert suspects[0].footprint_bytes == 2_000_000


def test_growth_is_shared_by_the_jobs_that_ran_together() -> None:
    leaks = Leaks()
    add(leaks, "one", 1_000_000, together=4)

    (task,) = leaks.tasks()

    assert (task.growth_bytes, task.together) == (250_000, 4.0)


def test_the_latest_samples_count_and_the_largest_is_remembered() -> None:
    leaks = Leaks()
    add(leaks, "one", 1_000_000, times=1)
    add(leaks, "one", 0, times=1_000)

    (task,) = leaks.tasks()

    assert (task.growth_bytes, task.samples, task.footprint_largest_bytes) == (0, 1_001, 2_000_000)


def test_many_tasks_stay_within_the_bytes() -> None:
    leaks = Leaks()
    add(leaks, "first", 5, times=1)
    for number in range(TASKS + 100):
        add(leaks, f"task-{number}", number, times=1)

    names = {task.task for task in leaks.tasks()}

    assert len(names) == TASKS
    assert "first" not in names
    assert leaks.size_bytes <= leaks.limit_bytes < 1_000_000


def test_a_list_of_a_module_that_holds_memory_is_named() -> None:
    KEPT.extend(bytes(100_000) for _ in range(100))
    try:
        holders = find_holders()
    finally:
        KEPT.clear()

    (found,) = [holder for holder in holders if holder.name.endswith("test_leaks.KEPT")]
    assert found.count == 100
    assert 9_000_000 < found.size_bytes < 11_000_000


def test_what_a_dict_of_objects_takes_is_estimated() -> None:
    class Thing:
        def __init__(self) -> None:
            self.payload = bytes(10_000)

    things = {number: Thing() for number in range(200)}

    assert 1_900_000 < weigh(things) < 2_300_000
