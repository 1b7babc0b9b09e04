"""The rules of the supervisor, with small programs in the place of workers: waits, bounds, and what ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from headrace.retry import Exponential
from headrace.worker import supervisor as rules
from headrace.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 20.0

#: A child that does what its first argument says; `note` appends a word to the file in its second.
PROGRAM = """
import json, os, signal, sys
def say(**message): os.write(int(os.environ["_HEADRACE_REPORT_FD"]), json.dumps(message).encode() + b"\\n")
def started(): say(type="started", worker="w", grace=0.1)
def stopped(): say(type="stopped", completed=7, failed=2, retried=1, seconds=0.5)
def note(word):
    file = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{word} {os.getpid()}\\n".encode())
    os.close(file)
def wait():
    while True: signal.pause()
def on(name, act): signal.signal(getattr(signal, name), lambda *_: act())
exec(sys.argv[1])
"""
READY = "on('SIGTERM', sys.exit); started()"
GOOD = f"{READY}; wait()"


class Lines(logging.Handler):
    """Log lines of the supervisor, as events."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[dict[str, Any]] = []
        self.news = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append({**vars(record), "message": record.getMessage()})
        self.news.set()

    def find(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.all if line["message"] == message]

    async def wait(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(DEADLINE):
            while len(self.find(message)) < count:
                self.news.clear()
                await self.news.wait()
        return self.find(message)[:count]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("headrace.worker")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def supervise(tmp_path: Path) -> Callable[..., Supervisor]:
    def make(code: str, processes: int = 1, **options: Any) -> Supervisor:
        return Supervisor([sys.executable, "-S", "-c", PROGRAM, code, str(tmp_path / "notes")], processes, **options)

    return make


def notes(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "notes").read_text().splitlines()]


async def finish(running: asyncio.Task[None]) -> None:
    async with asyncio.timeout(DEADLINE):
        await running


async def test_the_wait_before_a_crashed_child_is_replaced_doubles(
    supervise: Callable[..., Supervisor], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "BACKOFF", Exponential(base=0.01, maximum=0.06, jitter=False))
    supervisor = supervise("sys.exit(3)")
    running = asyncio.create_task(supervisor.run())

    waits = await lines.wait("worker process is replaced", 5)
    supervisor.stop()
    await finish(running)

    assert [line["delay"] for line in waits] == [0.01, 0.02, 0.04, 0.06, 0.06]
    crashes = lines.find("worker process ended by itself") + lines.find(
        "worker process ends again and again; see its last log lines"
    )
    assert [(line["end"], line["levelname"]) for line in crashes[:5]] == [("exit code 3", "WARNING")] * 4 + [
        ("exit code 3", "ERROR")
    ]
    assert supervisor.tallies[0].crashes == supervisor.tallies[0].starts


async def test_a_child_that_ran_well_is_replaced_after_the_shortest_wait_again(
    supervise: Callable[..., Supervisor], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "BACKOFF", Exponential(base=0.01, maximum=1.0, jitter=False))
    monkeypatch.setattr(rules, "RAN_WELL", 0.0)
    supervisor = supervise("started(); os.kill(os.getpid(), 9)")
    running = asyncio.create_task(supervisor.run())

    waits = await lines.wait("worker process is replaced", 3)
    supervisor.stop()
    await finish(running)

    assert [line["delay"] for line in waits] == [0.01] * 3
    assert lines.find("worker process ended by itself")[0]["end"] == "signal SIGKILL"


async def test_a_wrong_command_line_ends_the_supervisor(supervise: Callable[..., Supervisor], lines: Lines) -> None:
    supervisor = supervise("say(type='failed', reason='OptionError: no such app', code=2); sys.exit(2)", 3)

    await finish(asyncio.create_task(supervisor.run()))

    assert supervisor.refusal == ("OptionError: no such app", 2)
    assert [tally.starts for tally in supervisor.tallies] == [1, 1, 1]
    assert not lines.find("worker process is replaced")


async def test_burst_ends_when_every_child_did_and_counts_what_they_did(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise("started(); stopped()", 2, burst=True)

    await finish(asyncio.create_task(supervisor.run()))

    assert [(tally.completed, tally.failed, tally.retried, tally.seconds) for tally in supervisor.tallies] == [
        (7, 2, 1, 0.5)
    ] * 2
    assert supervisor.tallies[0].rate == 14.0


async def test_burst_without_a_server_ends_with_the_reason(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise("say(type='failed', reason='ConnectionLost: gone', code=1); sys.exit(1)", 2, burst=True)

    await finish(asyncio.create_task(supervisor.run()))

    assert supervisor.refusal == ("ConnectionLost: gone", 1)


async def test_a_child_that_ends_without_being_told_to_is_replaced_even_with_code_0(
    supervise: Callable[..., Supervisor], lines: Lines
) -> None:
    supervisor = supervise("started(); stopped()")
    running = asyncio.create_task(supervisor.run())

    await lines.wait("worker process started", 2)
    supervisor.stop()
    await finish(running)

    assert lines.find("worker process ended by itself")[0]["end"] == "exit code 0"


async def test_a_child_that_hangs_is_killed_some_time_after_its_grace(
    supervise: Callable[..., Supervisor], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "STOP_MARGIN", 0.1)
    deaf = "[on(name, lambda: None) for name in ('SIGTERM', 'SIGINT')]; started(); wait()"
    supervisor = supervise(deaf, 2)
    running = asyncio.create_task(supervisor.run())
    await lines.wait("worker process started", 2)

    supervisor.stop()
    await finish(running)

    assert supervisor.kills == 2
    assert [tally.crashes for tally in supervisor.tallies] == [0, 0]


async def test_a_program_that_cannot_be_started_is_tried_again(lines: Lines) -> None:
    supervisor = Supervisor(["/nowhere/python"], 1)
    running = asyncio.create_task(supervisor.run())

    failures = await lines.wait(
        "worker process cannot be started; see the limits of the system on processes and memory", 2
    )
    supervisor.stop()
    await finish(running)

    assert "No such file" in failures[0]["reason"]


async def test_cancelling_the_supervisor_kills_the_children(supervise: Callable[..., Supervisor], lines: Lines) -> None:
    supervisor = supervise(GOOD, 2)
    running = asyncio.create_task(supervisor.run())
    children = [line["child"] for line in await lines.wait("worker process started", 2)]

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish(running)

    assert [pid for pid in children if psutil.pid_exists(pid)] == []


# Rolling restart


async def test_a_graceful_stop_during_a_rolling_restart_is_graceful_for_the_former_child_too(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path
) -> None:
    slow = (
        "import select, time; fd = int(os.environ['_HEADRACE_REPORT_FD'])\n"
        "def end():\n    note('TERM')\n    while not os.path.exists(sys.argv[2] + '.gate'): time.sleep(0.01)\n"
        "    if select.select([fd], [], [], 0)[0]: note('hard')\n    sys.exit()\n"
        "on('SIGTERM', end); started(); wait()"
    )
    supervisor = supervise(slow, 2)
    running = asyncio.create_task(supervisor.run())
    await lines.wait("worker process started", 2)

    supervisor.restart()
    await lines.wait("worker process started", 3)
    supervisor.stop()
    (tmp_path / "notes.gate").touch()
    await finish(running)

    assert notes(tmp_path) == ["TERM"] * 3


async def test_a_hard_stop_is_told_to_each_child_beside_the_signal(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path
) -> None:
    both = (
        "on('SIGTERM', lambda: note('TERM')); started()\n"
        "note(os.read(int(os.environ['_HEADRACE_REPORT_FD']), 100).decode().strip())"
    )
    supervisor = supervise(both, 2)
    running = asyncio.create_task(supervisor.run())
    await lines.wait("worker process started", 2)

    supervisor.stop()
    supervisor.stop(hard=True)
    await finish(running)

    assert sorted(notes(tmp_path)) == ["TERM", "TERM", "hard", "hard"]


async def test_a_new_child_that_does_not_start_in_time_leaves_the_former_one(
    supervise: Callable[..., Supervisor], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "START_TIMEOUT", 0.2)
    once = (
        "note('begun'); first = open(sys.argv[2]).read().count('begun') == 1\n"
        "if first: started()\n"
        "on('SIGTERM', sys.exit); wait()"
    )
    supervisor = supervise(once)
    running = asyncio.create_task(supervisor.run())
    (first,) = await lines.wait("worker process started")

    supervisor.restart()
    (line,) = await lines.wait("new worker process did not start; the restart is given up")
    supervisor.stop()
    await finish(running)

    assert line["former_goes_on"] is True
    assert (supervisor.tallies[0].starts, supervisor.tallies[0].crashes, supervisor.kills) == (2, 0, 0)
    ends = {each["child"]: each["end"] for each in lines.find("worker process stopped")}
    assert ends.pop(first["child"]) == "exit code 0"
    assert list(ends.values()) == ["signal SIGKILL"]


async def test_a_restart_asked_for_during_a_restart_is_done_after_it(
    supervise: Callable[..., Supervisor], lines: Lines
) -> None:
    supervisor = supervise(GOOD, 2)
    running = asyncio.create_task(supervisor.run())
    await lines.wait("worker process started", 2)

    supervisor.restart()
    await lines.wait("worker process started", 3)
    supervisor.restart()
    await lines.wait("all worker processes are new", 2)
    supervisor.stop()
    await finish(running)

    assert [tally.starts for tally in supervisor.tallies] == [3, 3]
    assert [tally.crashes for tally in supervisor.tallies] == [0, 0]


async def test_a_former_child_that_crashes_during_a_restart_is_replaced_by_the_new_one_alone(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    second_waits = (
        f"note('begun')\nif open(sys.argv[2]).read().count('begun') == 2: open({str(gate)!r}).read()\n"
        "on('SIGTERM', sys.exit); started(); wait()"
    )
    supervisor = supervise(second_waits)
    running = asyncio.create_task(supervisor.run())
    (first,) = await lines.wait("worker process started")

    supervisor.restart()
    opened = await asyncio.to_thread(gate.open, "w")
    os.kill(first["child"], signal.SIGKILL)
    await lines.wait("worker process ended by itself")
    opened.close()
    await lines.wait("all worker processes are new")
    supervisor.stop()
    await finish(running)

    assert (supervisor.tallies[0].starts, supervisor.tallies[0].crashes) == (2, 1)
    assert not lines.find("worker process is replaced")


FIRST = "first = not os.path.exists(sys.argv[2])"
FULL = "say(type='pressed', step='critical', used_mb=99, budget_mb=100, jobs=['mail 01'], replace=True)"


async def test_a_child_that_asks_for_another_in_its_place_is_stopped_when_that_one_runs(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path
) -> None:
    ask = f"{FIRST}; note('began'); {READY}; first and {FULL}; wait()"
    supervisor = supervise(ask)
    running = asyncio.create_task(supervisor.run())

    (stopped,) = await lines.wait("worker process stopped")
    started = await lines.wait("worker process started", 2)
    (asked,) = await lines.wait("worker process is replaced before its memory runs out")
    supervisor.stop()
    await finish(running)

    assert (asked["child"], asked["used_mb"], asked["budget_mb"]) == (started[0]["child"], 99, 100)
    assert stopped["child"] == started[0]["child"]
    assert lines.all.index(started[1]) < lines.all.index(stopped)
    assert notes(tmp_path) == ["began", "began"]
    assert supervisor.tallies[0].crashes == 0


async def test_a_child_whose_successor_does_not_start_goes_on(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path
) -> None:
    ask = f"{FIRST}; note('began'); first or sys.exit(3); {READY}; {FULL}; wait()"
    supervisor = supervise(ask)
    running = asyncio.create_task(supervisor.run())

    (given_up,) = await lines.wait("new worker process did not start; the restart is given up")
    supervisor.stop()
    await finish(running)

    assert given_up["former_goes_on"]
    assert notes(tmp_path) == ["began", "began"]


async def test_a_child_that_the_system_killed_while_memory_was_short_is_named_as_that(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path
) -> None:
    short = FULL.replace("True", "False")
    tell = "note(os.environ.get('_HEADRACE_PREDECESSOR', 'none').split()[0])"
    die = f"{FIRST}; {tell}; {READY}; first and ({short}, os.kill(os.getpid(), 9)); wait()"
    supervisor = supervise(die)
    running = asyncio.create_task(supervisor.run())

    (lost,) = await lines.wait(
        "worker process ran out of memory; what kills it again and again is dead after HEADRACE_MAX_STALLED"
    )
    await lines.wait("worker process started", 2)
    supervisor.stop()
    await finish(running)

    assert lost["memory"].endswith("(it was critical at 99 of 100 MB, and ran mail 01)")
    assert notes(tmp_path) == ["none", "process"]


async def test_a_child_that_a_rolling_restart_has_replaced_is_not_replaced_again(
    supervise: Callable[..., Supervisor], lines: Lines, tmp_path: Path
) -> None:
    slow = f"{FIRST}; note('began'); on('SIGUSR1', lambda: {FULL}); first or time.sleep(0.3); {READY}; wait()"
    supervisor = supervise(f"import time; {slow}")
    running = asyncio.create_task(supervisor.run())
    (started,) = await lines.wait("worker process started")

    supervisor.restart()
    os.kill(started["child"], signal.SIGUSR1)
    await lines.wait("worker process is replaced before its memory runs out")
    await lines.wait("all worker processes are new")
    while supervisor._rolling is not None:
        await asyncio.wait([supervisor._rolling])
    supervisor.stop()
    await finish(running)

    assert notes(tmp_path) == ["began", "began"]
