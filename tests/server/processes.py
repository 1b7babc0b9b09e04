"""Real processes for the tests of the default server: users to start and kill, and ends to wait for."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Self

import psutil

from headrace.server.keeper import __file__ as keeper_file

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 10.0

USER = """
import sys
from pathlib import Path
from headrace.server import ensure_server

with ensure_server(Path(sys.argv[1]), linger=float(sys.argv[2])) as use:
    print(use.pid, use.url, flush=True)
    sys.stdin.readline()
"""


class UserProcess:
    """A process that uses the server of a folder until told or killed."""

    def __init__(self, folder: Path, *, linger: float = 0.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, folder, str(linger)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.server_pid = 0
        self.url = ""

    def wait_ready(self) -> Self:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        assert ready, "the user process printed nothing in time"
        pid, self.url = self.process.stdout.readline().split()
        self.server_pid = int(pid)
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE)

    def finish(self) -> None:
        self.process.communicate("\n", timeout=DEADLINE)
        assert self.process.returncode == 0


def keeper_of(server_pid: int) -> int:
    """The process that watches over the server."""
    keeper = psutil.Process(server_pid).parent()
    assert keeper is not None
    assert keeper_file in keeper.cmdline()
    return keeper.pid


def wait_ended(pid: int, timeout: float = DEADLINE) -> None:
    """Wait for the end of any process; a zombie counts as ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([process], [], [], timeout)
    finally:
        os.close(process)
    assert ended, f"process {pid} still runs after {timeout} s"


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_ended(pid)


def processes_below(folder: Path) -> list[psutil.Process]:
    """Every keeper whose command line names a path below the folder, and its server."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if keeper_file in command and any(str(folder) in word for word in command):
                found += [process, *process.children()]
        except psutil.Error:
            continue
    return found
