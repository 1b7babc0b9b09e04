"""`headrace bench` measures, writes, compares, and ends with 1 beyond the gate and 0 within it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from headrace.bench.workloads import digest_of, plan_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHORT = ("--only", "no-op,bursty,latency", "--repeats", "1", "--scale", "0.01")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "bench", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def edited(path: Path, factor: float) -> Path:
    """Write a copy of a report in which everything was so many times better."""
    report: dict[str, Any] = json.loads(path.read_text())
    for figure in report["figures"]:
        better = factor if figure["better"] == "more" else 1 / factor
        figure["values"] = [value * better for value in figure["values"]]
    copy = path.with_name("edited.json")
    copy.write_text(json.dumps(report))
    return copy


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One short run with its report and pictures."""
    folder = tmp_path_factory.mktemp("bench")
    return folder, run(*SHORT, "--json", str(folder / "a.json"), "--plots", str(folder / "plots"))


@pytest.mark.slow
def test_a_run_tells_its_figures_inputs_and_circumstances(
    measured: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = measured

    report = json.loads((folder / "a.json").read_text())

    assert done.returncode == 0, done.stderr
    names = {figure["name"] for figure in report["figures"]}
    assert names == {"no-op drain", "no-op CPU", *(f"latency p{share}" for share in (50, 95, 99)),
                     "bursty start p50", "bursty start p99"}  # fmt: skip
    assert all(value > 0 for figure in report["figures"] for value in figure["values"])
    assert report["inputs"]["digests"]["no-op"] == digest_of(plan_jobs("no-op", 200, 1))
    assert {"machine", "server", "python", "command"} <= report["facts"].keys()
    assert "no-op drain" in done.stdout
    assert list((folder / "plots").glob("*.svg"))


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "code"), [(1e-6, 0), (1e6, 1)])
def test_the_gate_ends_with_1_beyond_it_and_with_0_within_it(
    measured: tuple[Path, subprocess.CompletedProcess[str]], factor: float, code: int
) -> None:
    earlier = edited(measured[0] / "a.json", factor)

    done = run("--only", "no-op", *SHORT[2:], "--compare", str(earlier), "--gate", "10%")

    assert done.returncode == code, done.stderr
    assert ("Worse by more than 10 %, or not taken: no-op drain, no-op CPU." in done.stderr) is bool(code)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--gate", "10%"], "Add --compare REPORT.json"),
        (["--compare", "x.json", "--gate", "lots"], "expected a percent"),
        (["--compare", "nowhere.json"], "cannot be read"),
        (["--only", "nothing"], "expected some of no-op"),
        (["--json", "no/such/folder/x.json"], "there is no folder"),
        (["--compare", "nonesuch"], "expected incident"),
        (["--write", "README.md"], "Add --compare incident"),
        (["--connections", "20"], "Add --compare incident"),
        (["--compare", "incident", "--gate", "10%", "--only", "no-op"], "--only and --gate: this has no part in"),
        (["--compare", "saq", "--seed", "2"], "--seed: this has no part in --compare saq"),
        (["--compare", "incident", "--write", "nowhere.md"], "cannot be read"),
    ],
)
def test_a_wrong_option_ends_with_2_before_anything_runs(arguments: Sequence[str], complaint: str) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.slow
def test_an_interrupt_leaves_no_process() -> None:
    command = [sys.executable, "-m", "headrace", "bench", "--only", "no-op,idle"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "idle" not in line:
            line = process.stderr.readline()
        deadline = time.monotonic() + 10
        while not (children := psutil.Process(process.pid).children(recursive=True)) and time.monotonic() < deadline:
            time.sleep(0.01)

        os.kill(process.pid, signal.SIGINT)

        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Interrupted" in errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert children
    assert alive == []
