"""How soon a process is replaced whose memory is used up: bounded, said, and never into a full control group."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from headrace.memory.cgroup import Group
from headrace.retry import Exponential
from headrace.worker import place as rules
from tests.worker.test_supervisor_rules import FIRST, FULL, READY, Lines, finish, lines, notes, supervise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.worker.supervisor import Supervisor

__all__ = ["lines", "supervise"]

REPLACED = "worker process is replaced before its memory runs out"
SLOWER = (
    "worker processes use up their memory again and again soon after their start, and are replaced more slowly; mend "
    "what grows, or raise HEADRACE_MEMORY_LIMIT"
)


async def test_a_storm_of_replacements_slows_down_and_is_an_error(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "SLOWER", Exponential(base=0.01, maximum=0.02, jitter=False))
    supervisor = supervise(f"note(os.environ.get('_HEADRACE_QUICK', 'none')); {READY}; {FULL}; wait()")
    running = asyncio.create_task(supervisor.run())

    slower = await lines.wait(SLOWER, 3)
    supervisor.stop()
    await finish(running)

    assert [(line["levelname"], line["times"], line["delay"]) for line in slower] == [
        ("ERROR", 5, 0.01),
        ("ERROR", 6, 0.02),
        ("ERROR", 7, 0.02),
    ]
    assert len(lines.find(REPLACED)) == rules.MANY_QUICK - 1
    assert notes(tmp_path)[:7] == ["none", "1", "2", "3", "4", "5", "6"]
    assert supervisor.tallies[0].crashes == 0


async def test_a_process_that_ran_long_begins_the_count_anew(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "QUICK", 0.0)
    supervisor = supervise(f"note(os.environ.get('_HEADRACE_QUICK', 'none')); {READY}; {FULL}; wait()")
    running = asyncio.create_task(supervisor.run())

    await lines.wait(REPLACED, rules.MANY_QUICK + 2)
    supervisor.stop()
    await finish(running)

    assert set(notes(tmp_path)) == {"none"}


@pytest.mark.parametrize(("used_mb", "is_first"), [(924, True), (926, False)])
async def test_the_old_process_ends_first_where_the_control_group_has_no_room_for_both(
    supervise: Callable[..., Supervisor],
    lines: Lines,
    tmp_path: Path,
    used_mb: int,
    is_first: bool,  # noqa: FBT001 - a parameter
) -> None:
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    (tmp_path / "memory.max").write_text(str(1_000 << 20))
    (tmp_path / "memory.current").write_text(str(used_mb << 20))
    full = FULL.replace("replace=True", "replace=True, needs_mb=50")
    supervisor = supervise(
        f"{FIRST}; note('began'); {READY}; first and {full}; wait()", group=Group(2, tmp_path, tmp_path)
    )
    running = asyncio.create_task(supervisor.run())

    started = await lines.wait("worker process started", 2)
    (stopped,) = await lines.wait("worker process stopped")
    supervisor.stop()
    await finish(running)

    assert stopped["child"] == started[0]["child"]
    assert (lines.all.index(started[1]) < lines.all.index(stopped)) is is_first
    assert supervisor.tallies[0].crashes == 0


async def test_a_process_that_ends_while_its_replacement_waits_is_replaced_once(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MANY_QUICK", 1)
    monkeypatch.setattr(rules, "SLOWER", Exponential(base=0.2, maximum=0.2, jitter=False))
    supervisor = supervise(f"{FIRST}; note('began'); {READY}; first and {FULL}; wait()")
    running = asyncio.create_task(supervisor.run())

    (asked,) = await lines.wait(SLOWER)
    os.kill(asked["child"], signal.SIGKILL)
    await lines.wait("worker process started", 2)
    await asyncio.sleep(0.3)
    supervisor.stop()
    await finish(running)

    assert notes(tmp_path) == ["began", "began"]
