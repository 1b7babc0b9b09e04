from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis

from headrace.errors import OptionError, ServerStartFailed
from headrace.server import ServerUse, ensure_server, start_private_server
from headrace.server.folder import DataFolder
from headrace.server.launch import server_command
from tests.server.processes import UserProcess, keeper_of, kill, runs, wait_ended


def set_value(url: str, value: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.set("kept", value)


def get_value(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        value = client.get("kept")
    assert isinstance(value, bytes)
    return value.decode()


def test_the_first_use_starts_a_server_that_answers_on_a_private_socket(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data") as use, redis.Redis.from_url(use.url) as client:
        info = client.info("server")

        assert use.url.startswith("unix://")
        assert (info["process_id"], info["tcp_port"]) == (use.pid, 0)
        assert client.config_get("append*") | client.config_get("save") == {
            **client.config_get("append*"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        assert Path(use.socket_path).parent.stat().st_mode & 0o777 == 0o700


def test_a_second_use_gets_the_same_server(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data") as first, ensure_server(tmp_path / "data") as second:
        assert (second.pid, second.url, second.binary) == (first.pid, first.url, first.binary)
        assert first.count_users() == 2


def test_many_first_users_at_once_share_one_server(tmp_path: Path) -> None:
    users = [UserProcess(tmp_path / "data") for _ in range(4)]

    pids = {user.wait_ready().server_pid for user in users}

    assert len(pids) == 1
    for user in users:
        user.finish()
    wait_ended(pids.pop())


def test_many_threads_at_once_share_one_server(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        uses = list(threads.map(lambda _: ensure_server(tmp_path / "data", linger=0.0), range(8)))

    assert len({use.pid for use in uses}) == 1
    assert [use.release_and_wait() for use in uses] == [7, 6, 5, 4, 3, 2, 1, 0]


def test_the_last_release_stops_the_server_and_the_data_survive(tmp_path: Path) -> None:
    first, second = (ensure_server(tmp_path / "data", linger=0.0) for _ in range(2))
    pid = first.pid
    set_value(first.url, "by the first server")

    assert first.release_and_wait() == 1
    assert runs(pid)
    assert second.release_and_wait() == 0

    wait_ended(pid)
    assert not Path(second.socket_path).exists()
    with ensure_server(tmp_path / "data") as third:
        assert third.pid != pid
        assert get_value(third.url) == "by the first server"


def test_release_may_be_called_again_and_ends_every_claim(tmp_path: Path) -> None:
    use = ensure_server(tmp_path / "data", linger=0.0)

    use.release()
    use.release()

    assert not use.alive
    assert use.count_users() == 0
    assert use.release_and_wait() == 0


def test_a_user_that_comes_while_the_server_lingers_keeps_it(tmp_path: Path) -> None:
    first = ensure_server(tmp_path / "data", linger=30.0)
    pid = first.pid
    first.release()

    with ensure_server(tmp_path / "data", linger=0.0) as second:
        assert second.pid == pid


def test_users_that_come_and_go_at_once_always_get_a_server_that_answers(tmp_path: Path) -> None:
    def come_and_go(_: int) -> bool:
        with ensure_server(tmp_path / "data", linger=0.0) as use, redis.Redis.from_url(use.url) as client:
            return bool(client.ping())

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(come_and_go, range(30)))

    assert answers == [True] * 30


def test_a_killed_user_counts_as_gone(tmp_path: Path) -> None:
    user = UserProcess(tmp_path / "data").wait_ready()

    user.kill()

    wait_ended(user.server_pid)


def test_a_killed_first_user_does_not_take_the_server_from_the_others(tmp_path: Path) -> None:
    user = UserProcess(tmp_path / "data").wait_ready()
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        user.kill()

        assert use.pid == user.server_pid
        with redis.Redis.from_url(use.url) as client:
            assert client.ping()


def test_a_killed_keeper_takes_the_server_along_and_the_next_use_starts_anew_on_the_data(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        pid = use.pid
        set_value(use.url, "before the keeper died")

        kill(keeper_of(pid))

        wait_ended(pid)
        assert not use.alive
        with ensure_server(tmp_path / "data", linger=0.0) as again:
            assert again.pid != pid
            assert again.url == use.url
            assert get_value(again.url) == "before the keeper died"


def test_a_killed_server_is_started_again_on_its_data_for_its_users(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        pid = use.pid
        set_value(use.url, "before the server died")

        kill(pid)
        line = use._connection.receive(timeout=10.0)

        assert (line or "").startswith("ready ")
        assert use.alive
        assert get_value(use.url) == "before the server died"


def test_the_pid_of_a_use_follows_a_server_that_was_started_again(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use, ensure_server(tmp_path / "data", linger=0.0) as other:
        kill(use.pid)
        other._note(other._connection.receive(timeout=10.0))

        assert other.pid == use.pid
        assert runs(use.pid)


def test_a_terminated_keeper_stops_the_server_cleanly(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data") as use:
        os.kill(keeper_of(use.pid), signal.SIGTERM)

        wait_ended(use.pid)

        assert "User requested shutdown" in (tmp_path / "data" / "server.log").read_text()


def test_the_keeper_waits_without_waking_up(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data") as use:
        keeper = psutil.Process(keeper_of(use.pid))
        while keeper.status() != psutil.STATUS_SLEEPING:
            os.sched_yield()
        status = Path(f"/proc/{keeper.pid}/status")

        def switches() -> str:
            lines = status.read_text().splitlines()
            return next(line for line in lines if line.startswith("voluntary_ctxt_switches"))

        before = switches()
        threading.Event().wait(0.3)

        assert switches() == before


def test_a_forked_child_does_not_keep_the_server(tmp_path: Path) -> None:
    use = ensure_server(tmp_path / "data", linger=0.0)
    reader, writer = socket.socketpair()
    with reader, writer:
        child = os.fork()
        if child == 0:
            alive = use.alive
            writer.sendall(b"alive" if alive else b"released")
            writer.recv(1)
            os._exit(0)
        reader.settimeout(10.0)
        answer = reader.recv(16)

        others = use.release_and_wait()
        reader.sendall(b".")
        os.waitpid(child, 0)

    assert answer == b"released"
    assert others == 0


def test_a_start_that_finds_a_foreign_server_on_the_folder_says_so(tmp_path: Path) -> None:
    with start_private_server(tmp_path / "data"), pytest.raises(ServerStartFailed) as caught:
        ensure_server(tmp_path / "data", timeout=0.2)

    assert "neither answered nor ended within 0.2 s, and holds the lock" in str(caught.value)


def test_a_server_without_a_keeper_is_stopped_and_replaced(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        folder = DataFolder(tmp_path / "data")
        place = folder.read_place()
        binary = use.binary
        set_value(use.url, "by the server without a keeper")
        assert use.release_and_wait() == 0
    assert place is not None
    lock = folder.try_lock()
    assert lock is not None
    folder.make_socket_paths()
    folder.write_place(place)
    with lock, folder.log_path.open("ab") as log:
        orphan = subprocess.Popen(
            server_command(binary, folder, place.socket_path), pass_fds=[lock.fileno()], stdout=log
        )

    with ensure_server(tmp_path / "data", linger=0.0) as use:
        assert orphan.wait(10.0) == 0
        assert get_value(use.url) == "by the server without a keeper"


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("garbage\n")

    with pytest.raises(ServerStartFailed) as caught:
        ensure_server(folder)

    message = str(caught.value)
    assert f"the server of {folder}" in message
    assert "ended with exit status 1 before it was ready" in message
    assert "manifest" in message
    assert message.endswith("Repair what it names, or choose another HEADRACE_DATA_DIR.")


def test_a_server_that_is_not_ready_in_time_is_reported_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "redis-server"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=7.4.0" && exit\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(ServerStartFailed, match=r"(?s)was not ready within the last 0\.. s.*Raise the timeout"):
        ensure_server(tmp_path / "data", timeout=0.5, linger=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0.0}, "timeout=0.0: expected seconds, more than 0 and at most 600."),
        ({"timeout": float("nan")}, "timeout=nan: expected seconds, more than 0 and at most 600."),
        ({"linger": -1.0}, "linger=-1.0: expected seconds from 0 to 3600."),
        ({"linger": 1e9}, "linger=1000000000.0: expected seconds from 0 to 3600."),
    ],
)
def test_an_option_out_of_its_bounds_is_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        ensure_server(tmp_path / "data", **options)

    assert str(caught.value) == message
    assert not (tmp_path / "data").exists()


def test_the_package_needs_neither_the_client_nor_the_command_line() -> None:
    code = """
import importlib.machinery, importlib.util, sys
spec = importlib.util.find_spec("headrace")
bare = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("headrace", None, is_package=True))
bare.__path__ = spec.submodule_search_locations
sys.modules["headrace"] = bare
import headrace.server
print(*sys.modules)
"""

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"redis", "typer", "rich", "msgspec", "asyncio"} & set(answer.stdout.split())


def test_a_use_is_a_context_manager_that_releases(tmp_path: Path) -> None:
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        assert isinstance(use, ServerUse)
        assert use.fileno() >= 0

    assert use.fileno() == -1
