from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from headrace.errors import ServerStartFailed
from headrace.server import ensure_server
from headrace.server.keeper import RESTARTS, Log
from tests.server.processes import keeper_of, kill, runs, wait_ended


def test_the_log_and_its_predecessor_stay_within_their_size(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), limit_bytes=100)

    for number in range(50):
        log.write(b"%019d\n" % number)

    assert (tmp_path / "log").read_text().split()[-1] == f"{49:019}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())


def test_a_log_that_cannot_be_written_costs_lines_only(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), limit_bytes=10)
    (tmp_path / "log").unlink()

    log.write(b"more than ten bytes\n")


def test_the_keeper_stays_small(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        rss = psutil.Process(keeper_of(use.pid)).memory_info().rss

    assert rss < 16 * 1024 * 1024


def test_the_keeper_has_a_session_of_its_own_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")

    with ensure_server(tmp_path / "data", linger=0.0) as use:
        keeper = psutil.Process(keeper_of(use.pid))

        assert os.getsid(keeper.pid) != os.getsid(0)
        assert "DATABASE_PASSWORD" not in keeper.environ()
        assert keeper.pid not in {child.pid for child in psutil.Process().children()}


def test_a_server_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        keeper_pid = keeper_of(use.pid)
        deaths = 0
        while use.alive and deaths <= RESTARTS:
            kill(use.pid)
            deaths += 1
            use._note(use._connection.receive(timeout=10.0))

        line = None
        wait_ended(keeper_pid)

        assert deaths == RESTARTS + 1
        assert line is None
        assert not use.alive
    assert (tmp_path / "data" / "server.log").read_text().count("starting it again") == RESTARTS


def test_a_paused_server_is_stopped_all_the_same(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        pid = use.pid
        os.kill(pid, signal.SIGSTOP)

        assert use.release_and_wait() == 0

    assert not runs(pid)


def test_a_user_that_comes_while_the_server_stops_gets_a_new_one(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        pid = use.pid
        os.kill(keeper_of(pid), signal.SIGTERM)
        control = Path(use.socket_path).with_name("keeper.sock")
        while control.exists():
            os.sched_yield()

        with ensure_server(tmp_path / "data", linger=0.0) as again:
            assert again.pid != pid
            assert runs(again.pid)


def test_garbage_at_the_keepers_socket_harms_nobody(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use, ensure_server(tmp_path / "data", linger=0.0) as bad:
        bad._connection.socket.send(b"\xff\x00hello -1\nhello x\n\n" + b"x" * 100_000)
        bad._connection.send("count")

        assert use.count_users() in {1, 2}
        assert use.alive


def test_a_program_that_cannot_be_executed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis-server"
    # The second start finds the program gone.
    program.write_text('#!/bin/sh\necho "Redis server v=7.4.0"\nrm "$0"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(ServerStartFailed, match=r"(?s)ended with exit status 127.*No such file or directory"):
        ensure_server(tmp_path / "data")


def test_an_interpreter_that_is_none_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/usr/bin/uwsgi")
    monkeypatch.setattr("sys.base_exec_prefix", str(tmp_path))

    with pytest.raises(ServerStartFailed, match="no Python interpreter found to watch over the default server"):
        ensure_server(tmp_path / "data")


def test_a_keeper_that_fails_is_reported_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "gone" / "keeper.py"
    monkeypatch.setattr("headrace.server.keeper.__file__", str(missing))

    with pytest.raises(ServerStartFailed, match=rf"(?s)ended with exit status 2.*{missing}"):
        ensure_server(tmp_path / "data")


def test_a_keeper_that_cannot_be_started_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_run = subprocess.run

    def run(command: list[str], **options: object) -> object:
        if "env" in options:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real_run(command, **options)  # type: ignore[call-overload]  # options of any kind are handed on

    monkeypatch.setattr(subprocess, "run", run)

    with pytest.raises(ServerStartFailed, match=r"could not be started: .*temporarily unavailable\. Check memory"):
        ensure_server(tmp_path / "data")
