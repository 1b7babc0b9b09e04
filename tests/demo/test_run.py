"""`headrace demo` as a user runs it: real processes, a real server, and nothing left behind however it ends."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis
import typer
from typer.testing import CliRunner

from headrace.cli.demo import demo
from headrace.demo import recount, run
from headrace.demo.check import KILLED
from headrace.demo.crew import Crew
from headrace.demo.input import Input, find_input
from headrace.errors import HeadraceError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.demo.recount import FileFacts
    from headrace.server import PrivateServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

JOBS = 200
#: Nothing that is awaited here takes longer, seconds.
DEADLINE = 60.0


class Started:
    """A demonstration in a process of its own, with all of its files below one folder."""

    def __init__(self, folder: Path, *options: str, url: str = "") -> None:
        environment = {**os.environ, "TMPDIR": str(folder), "REDIS_URL": url, "COLUMNS": "100"}
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "demo", *options],
            cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_for(self, words: str) -> list[psutil.Process]:
        """Read lines until one holds the words, and return the processes there are by then."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if words in line:
                return self.processes()
        raise AssertionError(f"{words!r} did not come: {self.process.communicate()[1]}")

    def processes(self) -> list[psutil.Process]:
        """List workers, server and keeper: children, and whatever names the folder."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        named = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or ())
        ]
        return list({*children, *named})

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; returns exit code, output and errors."""
        output, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, output, errors


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Start demonstrations, and end those that a failed test leaves."""
    runs: list[Started] = []

    def start(*options: str, url: str = "") -> Started:
        runs.append(Started(tmp_path, *options, url=url))
        return runs[-1]

    yield start
    for each in runs:
        each.process.kill()
        each.process.communicate()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def left(processes: list[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait for processes to end, and return those that have not; one that only waits to be collected has."""
    deadline = time.monotonic() + timeout
    while alive := [one for one in processes if is_alive(one)]:
        if time.monotonic() > deadline:
            break
        psutil.wait_procs(alive, 0.1)
    return alive


def count_by_hand(jobs: int) -> tuple[int, int]:
    """Count lines and definitions of the first files in the plainest way."""
    lines = definitions = 0
    for file in find_input().files[:jobs]:
        source = Path(file.root, file.name).read_bytes()
        lines += len(source.splitlines())
        definitions += sum(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for node in ast.walk(ast.parse(source))
        )
    return lines, definitions


def test_a_worker_is_killed_and_every_number_adds_up(started: Any) -> None:
    child = started("--jobs", str(JOBS), "--json")

    code, output, errors = child.end()

    assert (code, errors) == (0, "")
    report = json.loads(output)
    lines, definitions = count_by_hand(JOBS)
    assert report["counted"] == report["recounted"]
    assert (report["counted"]["files"], report["counted"]["lines"]) == (JOBS, lines)
    assert report["counted"]["definitions"] == definitions
    assert (report["ok"], report["differences"], report["lost"]) == (True, [], 0)
    assert report["jobs"] + report["fan_in_jobs"] >= JOBS + report["packages"] + 1
    kill = report["kill"]
    assert kill["started"] >= 1, "the fault did not strike"
    assert report["twice"].get(KILLED, 0) <= kill["held"]
    assert 0 < kill["back_after"] <= kill["recovered_after"]
    assert list(child.folder.iterdir()) == []


def test_without_a_terminal_it_prints_plain_lines_and_an_account(started: Any) -> None:
    code, output, errors = started("--jobs", str(JOBS), "--svg", "demo.svg").end()

    assert (code, errors) == (0, "")
    assert "\x1b" not in output
    assert "killed with SIGKILL at" in output
    assert f"jobs lost   0 of {JOBS}" in output.replace(",", "")[:-1] or "jobs lost   0 of" in output
    assert output.endswith("Nothing was lost, and every number adds up.\n")
    figures = [float(line.split()[0]) for line in output.splitlines() if " waiting, " in line]
    assert all(later - earlier >= 0.95 for earlier, later in itertools.pairwise(figures))


def run_here(monkeypatch: pytest.MonkeyPatch, files: int, jobs: int) -> Any:
    """Run the command inside this process, on a few files, so that a test may change its parts."""
    found = find_input()
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setattr(run, "find_input", lambda: Input(found.files[:files], "some files"))
    command = typer.Typer()
    command.command()(demo)
    return CliRunner().invoke(command, ["--jobs", str(jobs), "--json"])


def test_more_jobs_than_files_repeat_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_here(monkeypatch, files=60, jobs=JOBS)

    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    lines, _ = count_by_hand(60)
    more, _ = count_by_hand(JOBS % 60)
    assert report["counted"] == report["recounted"]
    assert report["counted"]["files"] == JOBS
    assert report["counted"]["lines"] == JOBS // 60 * lines + more


def test_a_recount_that_differs_by_one_ends_with_1_and_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    true_count = recount.recount_file

    def off_by_one(path: Path, name: str) -> FileFacts:
        facts = true_count(path, name)
        return dataclasses.replace(facts, lines=facts.lines + (name == "ast.py"))

    monkeypatch.setattr(recount, "recount_file", off_by_one)

    result = run_here(monkeypatch, files=JOBS, jobs=JOBS)

    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["ok"]
    assert report["differences"][0].startswith("ast.py: its job counted 1,")
    assert [difference.partition(":")[0] for difference in report["differences"]] == [
        "ast.py", "all files", "package (modules)",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(started: Any, number: signal.Signals) -> None:
    child = started()
    processes = child.wait_for("enqueued in one call")
    assert len(processes) >= 4, "two workers, a server and its keeper"

    child.process.send_signal(number)
    code, _, errors = child.end()

    assert (code, errors) == (130, "Interrupted. No process, key or file of the demonstration is left.\n")
    assert left(processes, 0) == []
    assert list(child.folder.iterdir()) == []


def test_workers_and_server_end_with_a_killed_demo(started: Any) -> None:
    child = started()
    processes = child.wait_for("enqueued in one call")

    child.process.kill()
    child.end()

    assert left(processes, DEADLINE) == []


def test_on_a_server_of_somebody_else_only_its_own_keys_are_deleted(started: Any, server: PrivateServer) -> None:
    client = redis.Redis.from_url(server.url)
    client.set("somebody:else", "1")
    before = set(client.keys())

    code, output, errors = started("--jobs", str(JOBS), "--json", url=server.url).end()
    after = set(client.keys())
    client.delete("somebody:else")
    client.close()

    assert (code, errors) == (0, "")
    assert json.loads(output)["ok"]
    assert after == before


def test_a_picture_in_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no folder"):
        demo(svg=tmp_path / "no" / "demo.svg")


async def test_a_worker_that_ends_by_itself_is_reported_with_its_output(tmp_path: Path) -> None:
    crew = Crew({"REDIS_URL": "redis://127.0.0.1:1", "QUEUE_CONCURRENCY": "many"}, tmp_path)
    try:
        await crew.start()
        with pytest.raises(HeadraceError, match=r"worker 1 \(pid \d+\) ended by itself with code 1(?s:.*)QUEUE_CONC"):
            await asyncio.wait_for(crew.broken(), DEADLINE)
    finally:
        await crew.stop()
