"""The size that is recommended is the smallest that is enough, and its pool has what its jobs were seen to need."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench import choice
from headrace.bench.choice import Point, Profile, choose, pool_of, recommend
from headrace.errors import OptionError
from headrace.pool.lanes import Lane, app_shares

if TYPE_CHECKING:
    from pathlib import Path

POINTS = st.lists(
    st.builds(
        Point, st.integers(1, 8), st.sampled_from([1, 2, 4, 8, 64]), st.just(1_200), st.floats(0.1, 1e5),
        st.floats(0, 800), st.integers(0, 300), st.floats(0, 1e3),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def test_examples_are_true() -> None:
    assert doctest.testmod(choice).failed == 0


@given(POINTS, st.none() | st.floats(0.1, 1e5))
def test_no_smaller_point_is_enough(points: list[Point], goal: float | None) -> None:
    most = max(point.rate for point in points)

    best = choose(points, goal)

    wanted = goal if goal is not None and goal <= most else choice.ENOUGH * most
    assert best.rate >= wanted
    assert not any(
        point.rate >= wanted and (point.processes, point.slots) < (best.processes, best.slots) for point in points
    )


@given(POINTS)
def test_the_pool_has_what_the_jobs_borrowed_and_the_app_needs(points: list[Point]) -> None:
    found = recommend(points, Profile(calls=1), 2, None)

    shares = app_shares(found.connections)
    borrowed = choose(points).borrowed
    assert found.connections == pool_of(choose(points))
    assert shares[Lane.USER] >= 1 + borrowed
    assert min(shares.values()) >= 1


def test_a_goal_that_is_not_reached_is_said() -> None:
    found = recommend([Point(1, 8, 1_200, 80.0, 50.0, 0, 0.0)], Profile(), 2, 500.0)

    assert "500 jobs/s are not reached here, 80 at most" in found.reason


@pytest.mark.parametrize("profile", [Profile(wait_ms=20_000), Profile(cpu_ms=-1.0), Profile(calls=101)])
def test_a_profile_that_cannot_be_measured_is_refused(profile: Profile) -> None:
    with pytest.raises(OptionError, match="expected 0 to"):
        profile.check()


@pytest.mark.slow
def test_the_command_measures_a_curve_and_tries_what_it_recommends(tmp_path: Path) -> None:
    path = tmp_path / "size.json"
    command = [sys.executable, "-m", "headrace", "bench", "size", "--wait-ms", "20", "--cpu-ms", "0", "--calls", "1"]
    command += ["--goal", "60", "--seconds", "0.2", "--json", str(path), "--plots", str(tmp_path / "plots")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    found, confirmed = report["recommended"], report["confirmed"]
    assert [point["slots"] for point in report["points"]][:2] == [1, 2]
    assert f"QUEUE_CONCURRENCY={found['slots']}" in done.stdout
    assert (confirmed["processes"], confirmed["slots"], confirmed["connections"]) == (
        found["processes"], found["slots"], found["connections"],
    )  # fmt: skip
    assert (tmp_path / "plots" / "size.svg").exists()
