"""Whether a process ended for lack of memory: what is told of its end, and what is no sign of it."""

from __future__ import annotations

import pytest

from headrace.worker.memory_end import describe_memory_end
from headrace.worker.report import Failed, Pressed

CRITICAL = Pressed("critical", 950, 1_000, ["mail 01"])
NORMAL = Pressed("elevated", 850, 1_000, [])
NO_MEMORY = Failed("MemoryError: the worker itself could get no more memory", 1)


@pytest.mark.parametrize(
    ("code", "failed", "pressed", "kills", "words"),
    [
        (-9, None, None, 1, ["killed by the kernel", "control group ran out"]),
        (-9, None, CRITICAL, 1, ["killed by the kernel", "critical at 950 of 1,000 MB", "ran mail 01"]),
        (-9, None, CRITICAL, 0, ["probably for lack of memory", "critical at 950"]),
        (-9, None, NORMAL, 2, ["killed by the kernel"]),
        (1, NO_MEMORY, None, 0, ["could get no more memory"]),
    ],
)
def test_a_sign_is_said_in_words(
    code: int, failed: Failed | None, pressed: Pressed | None, kills: int, words: list[str]
) -> None:
    text = describe_memory_end(7, code, failed, pressed, kills)

    assert text.startswith("process 7 ")
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("code", "failed", "pressed", "kills"),
    [
        (-9, None, None, 0),
        (-9, None, NORMAL, 0),
        (-15, None, CRITICAL, 1),
        (0, None, CRITICAL, 0),
        (1, Failed("ConnectionLost: gone", 1), CRITICAL, 0),
    ],
)
def test_any_other_end_is_no_sign(code: int, failed: Failed | None, pressed: Pressed | None, kills: int) -> None:
    assert describe_memory_end(7, code, failed, pressed, kills) == ""
