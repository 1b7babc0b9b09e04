"""`--url` measures on the user's own server, and leaves there what was there and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headrace.server import start_private_server
from tests.support.raw import Raw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

COMMAND = (sys.executable, "-m", "headrace", "bench")
SHORT = ("--only", "no-op,idle", "--repeats", "1", "--scale", "0.01")
PASSWORD = "s3cret"
OTHERS = {"mine": "1", "headrace:{mail}:counters": "2"}


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server of somebody else, with keys of theirs, one of them below the prefix of Headrace."""
    with start_private_server(tmp_path / "theirs") as server:
        with Raw(server.url) as raw:
            raw.many([("SET", key, value) for key, value in OTHERS.items()])
        yield server


def kept(server: PrivateServer) -> dict[str, str]:
    with Raw(server.url) as raw:
        return {key: raw("GET", key).decode() for key in raw.keys("")}


def commands_of_jobs(server: PrivateServer) -> int:
    """Return how many scripts the server ran: each transition of a job is one."""
    with Raw(server.url) as raw:
        stats = raw("INFO", "commandstats").decode()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "_evalsha:" in line)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | environ, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("by_name", [False, True])
def test_the_jobs_run_on_the_server_that_is_named_and_the_keys_of_others_stay(
    theirs: PrivateServer, tmp_path: Path, *, by_name: bool
) -> None:
    report = tmp_path / "a.json"
    url = "REDIS_URL" if by_name else theirs.url

    done = run("--url", url, *SHORT, "--json", str(report), **({"REDIS_URL": theirs.url} if by_name else {}))

    assert done.returncode == 0, done.stderr
    assert commands_of_jobs(theirs) > 0
    assert kept(theirs) == OTHERS
    found = json.loads(report.read_text())
    assert theirs.url in found["facts"]["server"]
    assert "appendonly yes" in found["facts"]["server"]
    assert {figure["name"] for figure in found["figures"]} == {"no-op drain", "no-op CPU", "idle CPU"}
    assert "idle commands are not counted" in done.stderr


@pytest.mark.slow
def test_the_password_of_their_server_is_told_nowhere(theirs: PrivateServer, tmp_path: Path) -> None:
    report, url = tmp_path / "a.json", theirs.url.replace("unix://", f"unix://:{PASSWORD}@")
    with Raw(theirs.url) as raw:
        raw("CONFIG", "SET", "requirepass", PASSWORD)

        done = run("--url", url, "--only", "no-op", *SHORT[2:], "--json", str(report))

        raw("CONFIG", "SET", "requirepass", "")
    assert done.returncode == 0, done.stderr
    assert "unix://:***@" in report.read_text()
    assert PASSWORD not in report.read_text() + done.stdout + done.stderr


# Red when: run_bench takes the server of the settings although --url does not say so.
@pytest.mark.slow
def test_a_server_of_the_settings_gets_no_load_unless_asked(theirs: PrivateServer) -> None:
    done = run("--only", "no-op", *SHORT[2:], REDIS_URL=theirs.url)

    assert done.returncode == 0, done.stderr
    assert commands_of_jobs(theirs) == 0
    assert kept(theirs) == OTHERS


@pytest.mark.slow
def test_two_interrupts_leave_no_key_on_their_server(theirs: PrivateServer) -> None:
    command = [*COMMAND, "--url", theirs.url, "--only", "sleep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "warm-up" not in process.stderr.readline():
            assert process.poll() is None
        while len(kept_names(theirs)) <= len(OTHERS):
            assert process.poll() is None

        process.send_signal(signal.SIGINT)
        # The impatient press it twice; the second must not cut the cleaning short.
        process.send_signal(signal.SIGINT)

        process.communicate(timeout=40)
    assert process.returncode == 130
    assert kept(theirs) == OTHERS


def kept_names(server: PrivateServer) -> list[str]:
    with Raw(server.url) as raw:
        return raw.keys("")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "REDIS_URL"], "neither the environment nor .env sets it"),
        (["--url", "redis://127.0.0.1:1/0", "--compare", "incident"], "always uses servers of its own"),
        (["--url", "redis://127.0.0.1:1/0", "--compare", "saq"], "always uses servers of its own"),
    ],
)
def test_a_server_that_cannot_be_meant_is_refused(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if key != "REDIS_URL"}
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_server_without_room_is_refused_and_gets_nothing(theirs: PrivateServer) -> None:
    with Raw(theirs.url) as raw:
        raw("CONFIG", "SET", "maxmemory", "30mb")

    done = run("--url", theirs.url, *SHORT)

    assert done.returncode == 2
    assert "MB left of its maxmemory" in done.stderr
    assert kept(theirs) == OTHERS
