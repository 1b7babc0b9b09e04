"""The unit of systemd: what it says is well formed, and what it relies on is what `headrace worker` does."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from headrace import JobStatus
from headrace.memory.cgroup import find_group
from headrace.memory.limits import GIB, plan_limit
from headrace.settings import VARIABLES, load_settings
from tests.apps import shop
from tests.deploy.parts import DEADLINE, DEPLOY, STOPPED_AFTER, directives, headrace, read, seconds, size_bytes
from tests.worker.command import SHOP, WorkerCommand

if TYPE_CHECKING:
    from headrace.server import PrivateServer

UNIT = "systemd/headrace-worker.service"
#: Processes of the workers that are run here.
PROCESSES = 2
PROGRAM = "/srv/shop/.venv/bin/headrace"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def unit(name: str = UNIT) -> dict[str, str]:
    """Return the settings of a unit; no name comes twice in it."""
    lines = [line for line in read(name).splitlines() if "=" in line and not line.startswith("#")]
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines)
    return found


def environment_file() -> dict[str, str]:
    lines = [line for line in read("systemd/shop.env").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def arguments() -> list[str]:
    """Return what the unit gives to `headrace worker`, with the app of the tests."""
    program, command, app, *rest = shlex.split(unit()["ExecStart"])
    assert (program, command, app, rest[0]) == (PROGRAM, "worker", "shop:app", "-p")
    # Why fewer than it says: they all start and stop at the same time, on whatever machine runs the tests.
    return [SHOP, "-p", str(PROCESSES)]


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=DEADLINE, check=False)


# What it says


@needs_systemd
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    file = tmp_path / "headrace-worker.service"
    file.write_text(read(UNIT).replace(PROGRAM, str(Path(sys.executable).parent / "headrace")))

    done = analyze("verify", str(file))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_a_misspelt_line_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "headrace-worker.service"
    text = read(UNIT).replace(PROGRAM, sys.executable)
    file.write_text(text.replace("OOMPolicy=", "OOMPolcy="))

    assert "OOMPolcy" in analyze("verify", str(file)).stderr


@needs_systemd
def test_little_is_left_open_to_it() -> None:
    # Of 100, where 0 is nothing; 96 is a unit that says nothing of the kind.
    done = analyze("security", "--offline=true", "--threshold=20", str(DEPLOY / UNIT))

    assert done.returncode == 0, done.stdout[-2000:]


def test_the_time_to_stop_exceeds_the_grace_and_what_the_supervisor_adds() -> None:
    grace = float(environment_file()["HEADRACE_GRACE"])

    assert seconds(unit()["TimeoutStopSec"]) >= grace + STOPPED_AFTER + 5


def test_every_variable_of_its_file_is_a_setting_within_its_bounds() -> None:
    given = environment_file()

    settings = load_settings(environ=given, dotenv=None)

    assert given.keys() <= VARIABLES.keys()
    assert (settings.redis_max_connections, settings.grace, settings.health_port) == (20, 25.0, 8081)


def test_there_are_files_for_all_connections() -> None:
    processes = int(unit()["ExecStart"].rpartition(" ")[2])
    clients = int(directives(read("valkey.conf"))["maxclients"])

    assert int(unit()["LimitNOFILE"]) > 2 * processes * int(environment_file()["REDIS_MAX_CONNECTIONS"])
    assert int(unit("systemd/valkey-limits.conf")["LimitNOFILE"]) >= clients + 32


def test_the_governor_takes_memory_max_for_its_limit_and_each_process_a_part_of_it(tmp_path: Path) -> None:
    group = "/system.slice/headrace-worker.service"
    folder = tmp_path / "sys/fs/cgroup" / group.lstrip("/")
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{size_bytes(unit()['MemoryMax'])}\n")
    (folder / "memory.stat").write_text("inactive_file 0\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"0::{group}\n")
    (tmp_path / "proc/self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")

    found = find_group(tmp_path)

    assert found is not None
    limit = plan_limit(
        setting_bytes=0, group=(found.version, found.limit()), address_space=None, physical=8 * GIB, processes=4
    )
    assert str(limit) == "2,048 MB (cgroup v2), 512 MB for each of 4"


# What it relies on


@pytest.mark.parametrize(
    ("app", "more", "code"),
    [
        ("gone:app", {}, 2),
        ("shop:ap", {}, 2),
        ("shop:app", {"QUEUE_CONCURRENCY": "many"}, 2),
    ],
)
def test_it_is_not_started_again_when_that_cannot_help(app: str, more: dict[str, str], code: int) -> None:
    rest = arguments()[1:]

    done = headrace("worker", app, *rest, environment={"PYTHONPATH": str(DEPLOY / "docker"), **more})

    assert (done.returncode, bool(done.stderr)) == (code, True)
    assert (unit()["Restart"], unit()["RestartPreventExitStatus"]) == ("on-failure", str(code))


async def test_a_server_that_is_away_is_waited_for_by_the_supervisor() -> None:
    environment = {"REDIS_URL": "unix:///nowhere.sock", "REDIS_ACQUIRE_TIMEOUT_MS": "100"}
    with WorkerCommand(*arguments(), environment=environment) as command:
        await lines(command, "worker process ended by itself", 2)

        assert command.process.poll() is None


async def lines(command: WorkerCommand, message: str, count: int = 1) -> None:
    await asyncio.to_thread(command.wait_line, message, count)


@pytest.mark.slow
async def test_it_reloads_without_a_gap_survives_a_kill_and_stops_with_its_jobs_done(
    server: PrivateServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"REDIS_URL": server.url, "HEADRACE_PREFIX": prefix, "QUEUE_STALLED_INTERVAL": "1000"}
    monkeypatch.setattr(shop.app, "settings", load_settings(environ=environment, dotenv=None))
    with WorkerCommand(*arguments(), "-c", "1", environment=environment) as command:
        await lines(command, "worker started", PROCESSES)
        before = {child.pid for child in command.children()}

        # systemctl reload
        reload = unit()["ExecReload"].replace("$MAINPID", str(command.pid))
        await asyncio.to_thread(subprocess.run, shlex.split(reload), check=True)
        await lines(command, "worker process stopped", PROCESSES)
        after = {child.pid for child in command.children()}
        assert (len(after), after & before, command.process.poll()) == (PROCESSES, set(), None)

        # The kernel takes one: the others and the supervisor go on, and it is replaced.
        assert unit()["OOMPolicy"] == "continue"
        os.kill(min(after), signal.SIGKILL)
        await lines(command, "worker started", 2 * PROCESSES + 1)
        assert command.process.poll() is None

        # systemctl stop, with a job in each process
        async with shop.app, shop.client() as client:
            jobs = await shop.held.enqueue_many([(("gate",), {})] * PROCESSES)
            for _ in jobs:
                assert await client.blpop([shop.key("told")], timeout=DEADLINE)
            family = [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]
            assert (unit()["KillMode"], unit()["KillSignal"]) == ("mixed", "SIGTERM")
            command.send(signal.SIGTERM)
            await lines(command, "stopping gracefully", PROCESSES)
            await client.rpush(shop.key("gate"), *["go"] * PROCESSES)
            assert await asyncio.to_thread(command.wait) == 0
            assert [(await job.refresh()).status for job in jobs] == [JobStatus.COMPLETED] * PROCESSES
            await client.delete(shop.key("told"), shop.key("gate"))
    assert [process for process in family if process.is_running()] == []
