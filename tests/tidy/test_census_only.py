"""Whatever can outlive the code that made it is made through the census; each exception says why it is none."""

from __future__ import annotations

import ast
from typing import Final

import pytest

from tests.tidy.tree import name_of, tracked

#: Calls that make a timer, task, thread, child process, connection or file, by the last names of their dotted path.
MAKERS: Final = {
    "create_task", "ensure_future", "to_thread", "run_in_executor", "ThreadPoolExecutor", "ProcessPoolExecutor",
    "threading.Thread", "threading.Timer", "call_later", "call_at",
    "subprocess.Popen", "subprocess.run", "create_subprocess_exec", "create_subprocess_shell",
    "socket.socket", "socketpair", "create_connection", "create_unix_connection", "start_server", "create_server",
    "open_connection", "open_unix_connection", "os.open", "os.pipe", "fdopen", "pidfd_open", "mkstemp",
    "TaskGroup",
}  # fmt: skip
#: What goes through the census by its own methods.
THROUGH: Final = ("census.create_task", "census_book.create_task", "Census().create_task")

ONE_CALL = "it ends with the function that makes it"
OTHER_PROCESS = "the keeper is a process of its own, which holds nothing else"
COMMAND = "the demo is a command that ends with it"
BENCH = "the benchmark is a command that ends with it"
#: File and call -> why it is not made through the census, or where its entry is made.
ALLOWED: Final = {
    "census.py: loop.create_task": "this is where tasks are entered",
    "census.py: threading.Thread": "this is where calls in threads are entered",
    "clock.py: self._loop.call_later": "the clock enters its one timer",
    "pool/cluster_link.py: create_task": "the name stands for the method of the census, a few lines above it",
    "settings_env.py: path.open": ONE_CALL,
    "server/folder.py: self.log_path.open": ONE_CALL,
    "server/launch.py: folder.log_path.open": ONE_CALL,
    "testing/clean.py: asyncio.to_thread": "the test kit blocks in the threads of the loop of the test",
    "testing/inline_app.py: ThreadPoolExecutor": ONE_CALL,
    "testing/inline_worker.py: self.loop.call_at": "the test kit has no clock, for it has no process; one timer a call",
    "testing/leaks.py: socket.socket": ONE_CALL,
    "testing/outside.py: loop.create_task": "a task of the loop that it makes and closes itself",
    "worker/child.py: asyncio.ensure_future": ONE_CALL,
    "worker/child.py: socket.socketpair": "it is one with the process, which is entered",
    "worker/child.py: subprocess.Popen": "the child enters itself as a process",
    "worker/flights.py: asyncio.get_running_loop().call_later": "one timer of two milliseconds, on the hottest path",
    "worker/job_main.py: socket.socket": "it is all that a job process has, and it ends with it",
    "worker/job_process.py: os.pidfd_open": "it is one with the process, which is entered",
    "worker/job_process.py: self._loop.create_unix_connection": "it is one with the process, which is entered",
    "worker/job_process.py: socket.socketpair": "it is one with the process, which is entered",
    "worker/job_process.py: subprocess.Popen": "the job process enters itself",
    "worker/report.py: socket.socket": "it stays open to the end of the process, for a last word",
    "worker/threads.py: threading.Thread": "the threads of a worker are entered one by one",
    "bench/hired.py: asyncio.create_subprocess_exec": BENCH,
    "bench/hired.py: log.open": BENCH,
    "bench/incident/ours.py: asyncio.ensure_future": BENCH,
    "bench/incident/run.py: asyncio.create_subprocess_exec": BENCH,
    "bench/incident/run.py: log.open": BENCH,
    "bench/incident/side.py: asyncio.ensure_future": BENCH,
    "bench/peers.py: asyncio.create_subprocess_exec": BENCH,
    "bench/work.py: asyncio.ensure_future": BENCH,
    "cli/config_view.py: socket.socket": ONE_CALL,
    "cli/server.py: socket.socketpair": ONE_CALL,
    "demo/crew.py: asyncio.get_running_loop().create_task": COMMAND,
    "demo/place.py: asyncio.ensure_future": COMMAND,
    "verify/hands.py: log.open": ONE_CALL,
    "verify/journal.py: os.pipe": "the journal enters itself as a file, in the next lines",
    "verify/hands.py: asyncio.create_subprocess_exec": "verify enters each in its crew; the demonstration has no app",
    "demo/place.py: asyncio.to_thread": COMMAND,
    "demo/run.py: asyncio.ensure_future": COMMAND,
    "demo/work.py: asyncio.ensure_future": COMMAND,
    "health/listener.py: asyncio.start_server": "the listener enters itself as a connection",
    "memory/probes.py: os.open": ONE_CALL,
    "pool/connection.py: loop.create_connection": "its link enters it as a connection",
    "pool/connection.py: loop.create_unix_connection": "its link enters it as a connection",
    "pool/sockets.py: socket.create_connection": "its link, or the app for synchronous code, enters it",
    "pool/sockets.py: socket.socket": "its link, or the app for synchronous code, enters it",
    "pool/sync_tending.py: threading.Thread": "the pool enters each helper",
    "pool/sync_upkeep.py: threading.Thread": "the upkeep enters its thread",
    "pool/transport.py: os.open": ONE_CALL,
    "server/binary.py: subprocess.run": ONE_CALL,
    "server/folder.py: self.lock_path.open": "the lock is handed to the keeper, and closed",
    "server/keeper.py: os.open": OTHER_PROCESS,
    "server/keeper.py: os.pipe": OTHER_PROCESS,
    "server/keeper.py: socket.socket": OTHER_PROCESS,
    "server/keeper.py: socket.socketpair": OTHER_PROCESS,
    "server/launch.py: subprocess.run": ONE_CALL,
    "server/port.py: socket.socket": ONE_CALL,
    "server/private.py: socket.socket": ONE_CALL,
    "server/private.py: socket.socketpair": "a private server is a tool of tests that stops with its block",
    "server/use.py: socket.socket": "whoever holds the use enters it: the app, or its synchronous side",
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{dotted(node.func)}()"
    return "?"


def makes(name: str) -> bool:
    if name.endswith(THROUGH):
        return False
    # A file is opened by its name or by its path; whatever else has an `open` is no file.
    if name == "open" or name.endswith(("path.open", "log.open")):
        return True
    parts = name.split(".")
    return parts[-1] in MAKERS or ".".join(parts[-2:]) in MAKERS


def calls(text: str) -> set[str]:
    """Name the calls of a file that make something which may outlive them."""
    found = {dotted(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
    return {name for name in found if makes(name)}


def found_in_source() -> set[str]:
    return {
        f"{name_of(path).removeprefix('src/headrace/')}: {call}"
        for path in tracked(".py", "src/headrace")
        for call in calls(path.read_text())
    }


def test_whatever_outlives_its_maker_is_made_through_the_census() -> None:
    outside = sorted(found_in_source() - ALLOWED.keys())

    assert outside == [], "make it through the census, or say in ALLOWED why not: " + "; ".join(outside)


def test_every_exception_is_still_needed_and_has_a_reason() -> None:
    assert sorted(ALLOWED.keys() - found_in_source()) == []
    assert all(len(reason.split()) > 3 for reason in ALLOWED.values())


@pytest.mark.parametrize(
    "text",
    [
        "asyncio.create_task(run())",
        "loop.call_later(1.0, tick)",
        "threading.Timer(1.0, tick).start()",
        "subprocess.Popen(['true'])",
        "open('log')",
        "await asyncio.to_thread(work)",
    ],
)
def test_a_call_past_the_census_is_found(text: str) -> None:
    assert len(calls(f"async def run():\n    {text}\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "census.create_task(run(), name='run', owner='me')",
        "self._census.create_task(run(), name='run', owner='me')",
        "host.census_book.create_task(run(), name='run', owner='me')",
        "await self._census.in_thread(work, name='work', owner='me')",
        "link.opened()",
    ],
)
def test_a_call_through_the_census_passes(text: str) -> None:
    assert calls(f"async def run():\n    {text}\n") == set()
