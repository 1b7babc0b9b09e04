"""Programs with `process=True` tasks, run as users run them: as a script, as a module, without a guard, and killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headrace.ids import random_name
from tests.live import DEADLINE
from tests.server.processes import runs, wait_ended

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer

HEAD = """
import asyncio, json, os, sys, time
from headrace import Fixed, Headrace

prefix = os.environ["TEST_PREFIX"]
app = Headrace(os.environ["TEST_URL"], settings={"prefix": prefix, "keep_result": 60, "processes": 1})

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")

@app.task(process=True)
def where() -> list:
    print("said in the child", file=sys.stderr)
    return [os.getpid(), __name__, sys.argv[1:]]

@app.task(process=True, attempts=2, backoff=Fixed(0.0), retry_on=Odd)
def odd() -> None:
    raise Odd(1, 2)

@app.task(process=True)
def hang() -> None:
    print(os.getpid(), flush=True)
    while True:
        pass

def say(**facts):
    print(json.dumps(facts), flush=True)
"""

ROUND = """
async def main():
    async with app:
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        jobs = [await where.enqueue(), await odd.enqueue()]
        pid, name, argv = await jobs[0].result(timeout=10)
        try:
            await jobs[1].result(timeout=10)
        except Exception as error:
            raised = type(error).__name__
        failures = [failure.error for failure in jobs[1].failures]
        worker.stop()
        await running
    say(own=os.getpid(), pid=pid, name=name, argv=argv, raised=raised, failures=failures, left=len(app.census()))
"""

GUARDED = """
if __name__ == "__main__":
    asyncio.run(main())
"""

UNGUARDED = """
async def main():
    async with app:
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        done = asyncio.create_task(asyncio.wait({running}))
        job = await where.using(attempts=1).enqueue()
        try:
            await job.result(timeout=10)
        except Exception as error:
            say(message=str(error))
        worker.stop()
        await running

asyncio.run(main())
"""

KILLED = """
async def main():
    async with app:
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        if sys.argv[1] == "busy":
            await hang.enqueue()
        else:
            job = await where.enqueue()
            print((await job.result(timeout=10))[0], flush=True)
        await running

if __name__ == "__main__":
    asyncio.run(main())
"""


class Program:
    """A script in a folder of its own, and the environment to run it in."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "TEST_URL": url, "TEST_PREFIX": f"t-{random_name(8)}"}

    def write(self, text: str) -> Path:
        path = self.folder / "program.py"
        path.write_text(text)
        return path

    def run(self, *arguments: str) -> tuple[list[Any], str]:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=DEADLINE, check=False,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def program(tmp_path: Path, server: PrivateServer) -> Program:
    return Program(tmp_path, server.url)


def test_tasks_of_the_script_itself_are_found_under_another_name(program: Program) -> None:
    path = program.write(HEAD + ROUND + GUARDED)

    (said,), errors = program.run(str(path), "an", "argument")

    assert said["name"] == "__mp_main__"
    assert said["argv"] == ["an", "argument"]
    assert said["pid"] != said["own"]
    assert said["raised"] == "JobFailed"
    assert said["failures"] == ["__main__.Odd", "__main__.Odd"]
    assert said["left"] == 0
    assert errors.strip() == "said in the child"
    assert not runs(said["pid"])


def test_tasks_of_a_script_run_as_a_module_are_found_under_its_name(program: Program) -> None:
    program.write(HEAD + ROUND + GUARDED)

    (said,), _ = program.run("-m", "program")

    assert said["name"] == "program"
    assert said["raised"] == "JobFailed"
    assert [error.rpartition(".")[2] for error in said["failures"]] == ["Odd", "Odd"]


def test_a_script_without_a_guard_is_told_so_and_starts_no_worker_in_its_child(program: Program) -> None:
    path = program.write(HEAD + UNGUARDED)

    (said,), _ = program.run(str(path))

    assert "UsageError" in said["message"]
    assert 'under `if __name__ == "__main__":`' in said["message"]


@pytest.mark.parametrize("state", ["busy", "idle"])
def test_sigkill_of_a_worker_leaves_no_child(program: Program, state: str) -> None:
    path = program.write(HEAD + KILLED)
    worker = subprocess.Popen(
        [sys.executable, path, state], cwd=program.folder, env=program.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout is not None
        ready, _, _ = select.select([worker.stdout], [], [], DEADLINE)
        assert ready, "the child said nothing in time"
        child = int(worker.stdout.readline())
        assert runs(child)

        worker.send_signal(signal.SIGKILL)
        wait_ended(child)
    finally:
        worker.kill()
        worker.communicate(timeout=DEADLINE)
