"""A job that kills its worker by memory is named as that, and ends dead instead of killing workers for ever."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from headrace.cli.plan import PLAN_VARIABLE, Plan
from headrace.errors import JobFailed
from headrace.memory.cgroup import Group
from headrace.settings import load_settings
from headrace.worker.supervisor import Supervisor
from tests.apps import leaky
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer

DEADLINE = 30.0
MAX_STALLED = 1
LOST = "worker process ran out of memory; what kills it again and again is dead after HEADRACE_MAX_STALLED"


async def test_a_job_that_kills_by_memory_is_dead_and_its_workers_were_lost_to_memory(
    server: PrivateServer,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 4\n")
    environment = {
        "REDIS_URL": server.url,
        "HEADRACE_PREFIX": prefix,
        "QUEUE_STALLED_INTERVAL": "1000",
        "HEADRACE_MAX_STALLED": str(MAX_STALLED),
    }
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(leaky.app, "settings", load_settings(environ=environment, dotenv=None))
    plan = Plan("tests.apps.leaky:app", {"leaky": None}, 2, 1, None, burst=False, reload=False, uvloop=True)
    environment |= {PLAN_VARIABLE: plan.encode(), "TEST_MEMORY_EVENTS": str(events)}
    supervisor = Supervisor(
        [sys.executable, "-m", "headrace"], 1, environment=environment, group=Group(2, tmp_path, tmp_path)
    )

    with caplog.at_level(logging.INFO, "headrace"):
        async with asyncio.timeout(DEADLINE), leaky.app:
            killer, beside = await leaky.devour.enqueue(), await leaky.steady.enqueue(8)
            running = asyncio.create_task(supervisor.run())
            with pytest.raises(JobFailed):
                await killer.result(timeout=DEADLINE)
            result = await beside.result(timeout=10)
            await killer.refresh()
            supervisor.stop()
            await running

    lost = [record for record in caplog.records if record.getMessage() == LOST]
    assert len(lost) == MAX_STALLED + 1
    assert all("killed by the kernel: the memory of its control group ran out" in vars(one)["memory"] for one in lost)
    details = killer.details
    assert details is not None
    assert details.reason == "stalled"
    assert supervisor.tallies[0].crashes == MAX_STALLED + 1
    assert result[2] == 8 * 1_024

    # Red when: reclaim.lua puts a started job back for ever, or the supervisor takes no note of the kernel's count.
