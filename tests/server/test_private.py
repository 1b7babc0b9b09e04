from __future__ import annotations

import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import redis

from headrace.errors import OptionError, ServerStartFailed, UsageError
from headrace.server import ensure_server, start_private_server
from tests.server.processes import DEADLINE, keeper_of, kill, runs, wait_ended

if TYPE_CHECKING:
    from pathlib import Path

OWNER = """
import os, sys, threading
from pathlib import Path
from headrace.server import start_private_server

servers = []

def start():
    servers.append(start_private_server(Path(sys.argv[1])))

if sys.argv[2] == "thread":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
if sys.argv[2] == "forked":
    if os.fork() == 0:
        sys.stdin.readline()
        os._exit(0)
print(servers[0].pid, servers[0].url, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("where", ["main", "thread", "forked"])
def test_the_server_dies_with_its_owner_and_not_with_the_thread_that_started_it(tmp_path: Path, where: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "data", where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert select.select([owner.stdout], [], [], DEADLINE)[0]
    pid, url = owner.stdout.readline().split()
    with redis.Redis.from_url(url) as client:
        assert client.ping()

    owner.kill()
    owner.wait(DEADLINE)

    wait_ended(int(pid))
    # A forked child lives until here.
    owner.communicate(timeout=DEADLINE)


def test_a_killed_server_starts_again_on_the_same_data_and_address(tmp_path: Path) -> None:
    with start_private_server(tmp_path, extra=("--appendfsync", "always")) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
        first_pid, first_url = server.pid, server.url

        server.kill()

        assert not runs(first_pid)
        assert not server.running
        server.start()
        assert (server.pid != first_pid, server.url) == (True, first_url)
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"


def test_restart_stops_cleanly_and_keeps_the_data(tmp_path: Path) -> None:
    with start_private_server(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
        first_pid = server.pid

        server.restart()

        assert not runs(first_pid)
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"
    assert not server.running


def test_a_server_with_a_port_is_reached_by_tcp_and_keeps_the_port(tmp_path: Path) -> None:
    with start_private_server(tmp_path, port=0) as server:
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
        server.restart()
        for url in (server.url, server.socket_url):
            with redis.Redis.from_url(url) as client:
                assert client.ping()


def test_stop_and_kill_may_be_called_again(tmp_path: Path) -> None:
    server = start_private_server(tmp_path)
    pid = server.pid

    for end in (server.stop, server.stop, server.kill):
        end()

    assert not runs(pid)


def test_a_running_server_is_not_started_twice(tmp_path: Path) -> None:
    with (
        start_private_server(tmp_path) as server,
        pytest.raises(UsageError, match=r"is running already\. Call restart"),
    ):
        server.start()


def test_a_killed_keeper_takes_the_server_along(tmp_path: Path) -> None:
    with start_private_server(tmp_path) as server:
        kill(keeper_of(server.pid))

        wait_ended(server.pid)


def test_a_server_that_was_killed_by_somebody_else_stays_down(tmp_path: Path) -> None:
    with start_private_server(tmp_path) as server:
        keeper_pid = keeper_of(server.pid)

        kill(server.pid)

        wait_ended(keeper_pid)
        server.restart()
        assert runs(server.pid)


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.server.private._START_TIMEOUT", 0.1)
    with ensure_server(tmp_path, linger=0.0), pytest.raises(ServerStartFailed, match="is in use by another server"):
        start_private_server(tmp_path)


def test_an_option_that_the_server_refuses_is_reported_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerStartFailed) as caught:
        start_private_server(tmp_path, extra=("--no-such-option", "1"))

    assert "no-such-option" in str(caught.value)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_its_bounds_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(OptionError, match=rf"port={port}: expected a whole number from 0 to 65535"):
        start_private_server(tmp_path, port=port)
