"""What goes into a run comes from its seed, and is the same whenever and wherever it runs."""

from __future__ import annotations

import doctest
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headrace.bench import work, workloads
from headrace.bench.incident import workload
from headrace.bench.incident.workload import QUEUES, Workload
from headrace.bench.workloads import BIG_BYTES, MANY_QUEUES, WORKLOADS, digest_of, plan_jobs

if TYPE_CHECKING:
    from types import ModuleType


@pytest.mark.parametrize("module", [work, workload, workloads])
def test_examples_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_plans_the_same_jobs_in_another_process(name: str) -> None:
    code = (
        "from headrace.bench.workloads import digest_of, plan_jobs\n"
        f"print(digest_of(plan_jobs({name!r}, 30, 5)), digest_of(plan_jobs({name!r}, 30, 6)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    same, other = done.stdout.split()
    assert same == digest_of(plan_jobs(name, 30, 5))
    assert (same == other) is (name in {"no-op", "queues", "bursty"})


def test_workloads_are_what_their_names_say() -> None:
    kinds = [call.kind for call in plan_jobs("mixed", 1_000, 1)]

    assert 0.6 < kinds.count("no-op") / 1_000 < 0.8
    assert len({call.queue for call in plan_jobs("queues", 1_000, 1)}) == MANY_QUEUES
    assert {len(call.text) for call in plan_jobs("big", 2, 1)} == {BIG_BYTES - 1}
    assert all(0.005 <= call.amount <= 0.015 for call in plan_jobs("sleep", 100, 1))


def test_both_sides_of_the_incident_get_the_same_load() -> None:
    first, second = Workload(seed=3), Workload(**Workload(seed=3).plain())

    drawn = [
        (load.job_seconds(7), load.request_seconds(7), load.queue(7), list(load.arrivals(10.0, 2.0)))
        for load in (first, second)
    ]

    assert drawn[0] == drawn[1]
    assert first.job_seconds(7) != Workload(seed=4).job_seconds(7)
    assert {first.queue(number) for number in range(9)} == set(QUEUES)


def test_a_shortened_load_keeps_its_users() -> None:
    short = Workload().shortened(0.5)

    assert (short.rush, short.uptime) == (Workload().rush / 2, Workload().uptime / 2)
    assert (short.rush_users, short.surge_users) == (Workload().rush_users, Workload().surge_users)
