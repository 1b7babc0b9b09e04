"""What the demonstration shows: one screen on a terminal, few and plain lines elsewhere, every figure in the end."""

from __future__ import annotations

import dataclasses
import io
import re
from typing import TYPE_CHECKING

from rich.console import Console

from headrace.demo.app import Function
from headrace.demo.display import LiveDisplay, PlainDisplay, describe_scene, draw_scene, print_report, write_svg
from headrace.demo.scene import DemoReport, Kill, Moment, ProcessRow, Scene, Sum
from headrace.pool.figures import PoolStats
from headrace.queue import QueueStats

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SUM = Sum(1_790, 858_237, 71_870, 11_965, 9)
REPORT = DemoReport(
    ok=True,
    differences=[],
    what="the 1,790 source files of Python 3.11.7",
    jobs=1_790,
    fan_in_jobs=39,
    packages=35,
    counted=SUM,
    recounted=SUM,
    longest=[Function(671, "Test.test_factory", "test/test_abc.py", 15)],
    not_parsed={"lib2to3/bom.py": "SyntaxError: Missing parentheses"},
    kill=Kill("worker 2", 4711, 43.2, 7, 4, back_after=2.01, recovered_after=2.14),
    lost=0,
    twice={"their worker was killed while it ran them": 4},
    throughput=345.6,
    jobs_seconds=5.3,
    seconds=12.0,
    recount_seconds=6.0,
    pool_most=3,
    pool_waited=0,
    worker_connections_most=4,
    memory_most_bytes=216_000_000,
    server="Valkey 8.1.8",
    story=[Moment(5.3, "taken back", "good"), Moment(3.4, "worker 2 killed", "bad")],
)


def make_scene() -> Scene:
    stats = QueueStats(500, 0, 12, 1_200, 0, 0, False, 0.0, 0.0, 0.0, 0, 2, 0, 0)  # noqa: FBT003 - fourteen figures
    scene = Scene(jobs=1_790, what="the files", phase="jobs", completed=1_200, rate=344.0, queues={"files": stats})
    scene.pool = PoolStats(
        name="app",
        minimum=20,
        maximum=100,
        total=3,
        active=1,
        idle=2,
        opening=0,
        waiting=0,
        opened_total=3,
        calls_total=900,
    )
    scene.processes = [
        ProcessRow("demo", 1, "collects", None, 50_000_000, 3),
        ProcessRow("worker 1", 2, "killed at 43 %", 812),
    ]
    scene.story = [Moment(0.8, "two workers run"), Moment(3.4, "worker 1 killed", "bad")]
    return scene


def test_a_line_holds_jobs_by_status_rate_pool_and_memory() -> None:
    line = describe_scene(make_scene())

    assert line == "500 waiting, 12 active, 1,200 completed jobs; 344 files/s; pool 3 of 100, 0 wait; memory 50 MB"


def test_plain_lines_tell_each_moment_once_and_figures_in_between() -> None:
    stream, scene = io.StringIO(), make_scene()
    display = PlainDisplay(stream)

    for _ in range(3):
        display.show(scene)
    scene.story.append(Moment(5.0, "taken back"))
    display.show(scene)

    lines = stream.getvalue().splitlines()
    assert [line.partition(" s  ")[2][:12] for line in lines] == [
        "two workers ", "worker 1 kil", "500 waiting,", "500 waiting,", "taken back",
    ]  # fmt: skip
    assert display.interval >= 1.0


def test_a_terminal_shows_queues_processes_pool_and_story() -> None:
    stream = io.StringIO()
    display = LiveDisplay(Console(file=stream, force_terminal=True, width=100, height=40))

    with display:
        display.show(make_scene())

    text = stream.getvalue()
    for part in (
        "1,200 of 1,790 files, 344 a second",
        "completed",
        "killed at 43 %",
        "812",
        "50 MB",
        "3 of 100",
        "two workers",
    ):
        assert part in text


def test_a_small_terminal_shows_the_end_of_the_story() -> None:
    scene = make_scene()
    scene.story = [Moment(float(at), f"moment {at}") for at in range(12)]
    console = Console(width=100, height=24)

    with console.capture() as capture:
        console.print(draw_scene(scene, 24))

    lines = capture.get().splitlines()
    assert len(lines) < 24
    assert "moment 11" in lines[-1]
    assert not any("moment 0" in line for line in lines)


def shown(report: DemoReport, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(report, Console(width=100))
    return capsys.readouterr().out


def test_the_account_holds_every_figure_in_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(REPORT, capsys)

    for part in (
        "1,790 jobs on the 1,790 source files of Python 3.11.7, with Valkey 8.1.8",
        "671   test_factory test/test_abc.py:15",
        "jobs lost   0 of 1,829",
        "run twice   4: their worker was killed while it ran them",
        "recovery    2.1 s",
        "throughput  346 jobs/s over 5.3 s",
        "at most 3 connections here and 4 in a worker; 0 calls waited",
        "at most 216 MB",
        "lib2to3/bom.py: Missing parentheses",
        "Nothing was lost, and every number adds up.",
    ):
        assert part in text
    assert re.search(r"lines +858,237 +858,237 +=", text)
    assert "\x1b" not in text
    assert all(line == line.rstrip() and len(line) <= 100 for line in text.splitlines())
    assert text.index("worker 2 killed") < text.index("taken back")


def test_the_account_names_what_does_not_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    less = dataclasses.replace(SUM, lines=858_236)
    text = shown(dataclasses.replace(REPORT, ok=False, recounted=less, differences=["lines differ by 1"]), capsys)

    assert re.search(r"lines +858,237 +858,236 +≠", text)
    assert "Not every number adds up:\n  lines differ by 1" in text
    assert "Nothing was lost" not in text


def test_a_run_without_a_kill_is_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(dataclasses.replace(REPORT, kill=None, twice={}, not_parsed={}), capsys)

    assert "run twice   0" in text
    assert "recovery    none" in text


def test_the_picture_is_an_svg_of_the_account(tmp_path: Path) -> None:
    write_svg(REPORT, tmp_path / "demo.svg")

    text = (tmp_path / "demo.svg").read_text()
    assert text.startswith("<svg")
    assert "test_factory" in text
    assert "url(" not in text.replace("url(#", "")
