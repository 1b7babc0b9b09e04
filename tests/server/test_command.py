from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Self

import pytest
import redis

from headrace.server import ensure_server, start_private_server
from tests.server.processes import DEADLINE, keeper_of, kill, runs, wait_ended

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = "import typer; from headrace.cli.server import server; typer.run(server)"


class Command:
    """The command `headrace server` in a process of its own."""

    def __init__(self, *arguments: str | Path, cwd: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=os.environ | {"COLUMNS": "400"} | environment,
        )
        self.facts: dict[str, str] = {}

    def wait_ready(self) -> Self:
        assert self.process.stdout is not None
        while (line := self.next_line()) != "Ctrl+C stops it.":
            name, value = line.split(maxsplit=1)
            self.facts.setdefault(name, value)
        return self

    def next_line(self) -> str:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline().rstrip("\n")
        assert line, self.process.stderr.read()
        return line

    def end(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_tells_what_runs_and_a_signal_stops_it_cleanly(tmp_path: Path, number: int) -> None:
    command = Command("--data-dir", tmp_path / "data", cwd=tmp_path).wait_ready()
    pid = int(command.facts["pid"])
    assert runs(pid)

    code, out, err = command.end(number)

    assert (code, out, err) == (0, "Stopped. Its data are kept.\n", "")
    assert not runs(pid)
    assert command.facts["url"].startswith("unix://")
    assert command.facts["product"] in {"redis", "valkey"}
    assert command.facts["version"][0].isdigit()
    assert command.facts["folder"] == str(tmp_path / "data")


def test_it_leaves_the_server_to_the_others_and_says_so(tmp_path: Path) -> None:
    command = Command("--data-dir", tmp_path / "data", cwd=tmp_path).wait_ready()
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        code, out, _ = command.end(signal.SIGINT)

        assert (code, out) == (0, "Released. The server goes on for 1 other process.\n")
        assert runs(use.pid)


def test_the_folder_comes_from_the_settings(tmp_path: Path) -> None:
    command = Command(cwd=tmp_path, HEADRACE_DATA_DIR="elsewhere").wait_ready()

    assert command.end(signal.SIGTERM)[0] == 0
    assert command.facts["folder"] == str(tmp_path / "elsewhere")


def test_a_port_is_open_on_the_loopback_until_it_stops(tmp_path: Path) -> None:
    port = free_port()
    command = Command("--data-dir", tmp_path / "data", "--port", str(port), cwd=tmp_path).wait_ready()
    with ensure_server(tmp_path / "data", linger=0.0) as use:
        with redis.Redis(port=port) as client:
            assert client.ping()
            assert client.config_get("bind") == {"bind": "127.0.0.1"}

        assert command.end(signal.SIGTERM)[0] == 0

        assert command.facts["url"] == f"redis://127.0.0.1:{port}/0"
        assert use.alive
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_reported_and_stops_the_server(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        code, _, err = Command("--data-dir", tmp_path / "data", "--port", str(port), cwd=tmp_path).wait()

    assert code == 1
    assert err.startswith("CommandRefused: the server at ")
    assert "The port may be taken" in err


def test_a_second_port_is_refused(tmp_path: Path) -> None:
    port = free_port()
    command = Command("--data-dir", tmp_path / "data", "--port", str(port), cwd=tmp_path).wait_ready()

    code, _, err = Command("--data-dir", tmp_path / "data", "--port", str(free_port()), cwd=tmp_path).wait()

    assert code == 1
    assert f"is open on port {port} already" in err
    assert command.end(signal.SIGTERM)[0] == 0


def test_a_server_that_was_started_again_is_announced_with_its_port(tmp_path: Path) -> None:
    port = free_port()
    command = Command("--data-dir", tmp_path / "data", "--port", str(port), cwd=tmp_path).wait_ready()

    kill(int(command.facts["pid"]))

    assert command.next_line().startswith("The server ended by itself and was started again as pid ")
    assert command.end(signal.SIGTERM)[0] == 0


def test_the_death_of_the_keeper_ends_it_with_an_error(tmp_path: Path) -> None:
    command = Command("--data-dir", tmp_path / "data", cwd=tmp_path).wait_ready()
    pid = int(command.facts["pid"])

    kill(keeper_of(pid))

    code, _, err = command.wait()
    assert code == 1
    assert err.startswith("The process that watched over the server has died, and the server with it.")
    wait_ended(pid)


def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    code, out, err = Command("--data-dir", "file/data", cwd=tmp_path).wait()

    assert (code, out) == (1, "")
    assert err.startswith(f"ServerStartFailed: the data folder {tmp_path}/file/data cannot be used: Not a directory.")


def test_a_folder_whose_server_belongs_to_somebody_alone_is_reported(tmp_path: Path) -> None:
    with start_private_server(tmp_path / "data") as server:
        # The start waits ten seconds for the folder; the test shows only that it does not share the server.
        command = Command("--data-dir", tmp_path / "data", cwd=tmp_path)
        assert command.process.stdout is not None
        readable, _, _ = select.select([command.process.stdout], [], [], 0.5)
        command.process.kill()
        command.wait()

        assert not readable
        assert runs(server.pid)
