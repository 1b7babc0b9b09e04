"""`headrace worker` with real processes on a real server: how it stops, restarts, recovers, and what it says."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from headrace import JobStatus
from headrace.cli.commands import make_group
from headrace.ids import random_name
from headrace.server import start_private_server
from headrace.settings import load_settings
from tests.apps import shop
from tests.server.processes import wait_ended
from tests.worker.command import DEADLINE, SHOP, WorkerCommand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import redis.asyncio

    from headrace.server import PrivateServer
    from tests.support.stalls import Stalls

#: Of the workers in these tests, seconds.
LEASE = 2.0
NOWHERE = {"REDIS_URL": "unix:///nowhere.sock", "REDIS_ACQUIRE_TIMEOUT_MS": "100"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    with start_private_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def environment(server: PrivateServer) -> dict[str, str]:
    return {
        "REDIS_URL": server.url,
        "HEADRACE_PREFIX": f"t-{random_name(8)}",
        "QUEUE_STALLED_INTERVAL": str(round(LEASE * 1000)),
    }


@pytest.fixture
async def redis_client(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[redis.asyncio.Redis]:
    """The app of the tests, open in this process with the same keys as the workers; yields a plain client beside it."""
    monkeypatch.setattr(shop.app, "settings", load_settings(environ=environment, dotenv=None))
    async with shop.app, shop.client() as client:
        yield client
    assert shop.app.census() == []


class Told:
    """What the tasks told, in order."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self.all: list[tuple[str, int, str, float]] = []

    async def wait(self, word: str, count: int) -> list[tuple[str, int, str, float]]:
        """Wait until a word was told so often."""
        async with asyncio.timeout(DEADLINE):
            while len(found := [one for one in self.all if one[0] == word]) < count:
                answer = await self._client.blpop([shop.key("told")], timeout=0)
                assert answer is not None
                word_told, pid, job, at = str(answer[1]).split()
                self.all.append((word_told, int(pid), job, float(at)))
        return found


async def logged(command: WorkerCommand, message: str, count: int = 1, **fields: Any) -> dict[str, Any]:
    return await asyncio.to_thread(command.wait_line, message, count, **fields)


async def stopping(command: WorkerCommand, processes: int) -> None:
    await logged(command, "stopping gracefully; another signal stops at once")
    if processes > 1:
        await logged(command, "stopping gracefully", processes)


async def ended(command: WorkerCommand) -> int:
    return await asyncio.to_thread(command.wait)


# Stopping


@pytest.mark.parametrize("processes", [1, 2])
async def test_what_does_not_end_within_the_grace_is_handed_back_and_burns_no_attempt(
    redis_client: redis.asyncio.Redis, environment: dict[str, str], processes: int
) -> None:
    jobs = await shop.held.enqueue_many([(("never",), {})] * 12)
    arguments = (SHOP, "-q", "mail", "-c", "3", "-p", str(processes), "--grace", "0.2")
    with WorkerCommand(*arguments, environment=environment) as command:
        await Told(redis_client).wait("began", 3 * processes)

        command.send(signal.SIGTERM)
        code = await ended(command)

    assert code == 0
    for job in jobs:
        await job.refresh()
        assert (job.status, job.attempts) == (JobStatus.WAITING, 0)


@pytest.mark.parametrize("processes", [1, 2])
async def test_what_ends_within_the_grace_is_completed(
    redis_client: redis.asyncio.Redis, environment: dict[str, str], processes: int
) -> None:
    jobs = await shop.held.enqueue_many([(("gate",), {})] * 6)
    arguments = (SHOP, "-q", "mail", "-c", "2", "-p", str(processes), "--grace", "60")
    with WorkerCommand(*arguments, environment=environment) as command:
        told = Told(redis_client)
        await told.wait("began", 2 * processes)

        command.send(signal.SIGTERM)
        await stopping(command, processes)
        await redis_client.rpush(shop.key("gate"), *"go" * 6)
        code = await ended(command)
        summary = command.summary()

    states = [((await job.refresh()).status, job.attempts) for job in jobs]
    assert code == 0
    assert states.count((JobStatus.WAITING, 0)) == 6 - 2 * processes
    assert len(await told.wait("ended", 2 * processes)) == 2 * processes
    assert summary["1" if processes == 1 else "total"]["completed"] == str(2 * processes)


async def test_a_graceful_stop_under_load_loses_no_job_and_runs_none_twice(
    redis_client: redis.asyncio.Redis, environment: dict[str, str]
) -> None:
    jobs = await shop.count.enqueue_many([((), {})] * 6_000)
    with WorkerCommand(SHOP, "-q", "mail", "-c", "20", "-p", "2", environment=environment) as command:
        for _ in range(200):
            assert await redis_client.blpop([shop.key("counted")], timeout=DEADLINE)

        command.send(signal.SIGTERM)
        code = await ended(command)
        completed = int(command.summary()["total"]["completed"])

    runs = await redis_client.hgetall(shop.key("runs"))
    stats = await shop.app.queue("mail").stats()
    assert code == 0
    assert set(runs.values()) == {"1"}
    assert 200 <= completed == len(runs) < len(jobs)
    assert (stats.waiting, stats.active, stats.delayed) == (len(jobs) - completed, 0, 0)
    waiting = [job for job in jobs if job.id not in runs]
    assert {(await job.refresh()).attempts for job in waiting[:: len(waiting) // 50 + 1]} == {0}


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_second_signal_stops_without_grace(
    redis_client: redis.asyncio.Redis, environment: dict[str, str], processes: int
) -> None:
    jobs = await shop.held.enqueue_many([(("never",), {})] * processes)
    arguments = (SHOP, "-q", "mail", "-c", "1", "-p", str(processes), "--grace", "600")
    with WorkerCommand(*arguments, environment=environment) as command:
        await Told(redis_client).wait("began", processes)

        command.send(signal.SIGTERM)
        await stopping(command, processes)
        command.send(signal.SIGTERM)
        code = await ended(command)

    assert code == 0
    assert len(command.find("stopping without grace")) == (1 if processes == 1 else 3)
    for job in jobs:
        await job.refresh()
        assert (job.status, job.attempts) == (JobStatus.WAITING, 0)


async def test_ctrl_c_at_a_terminal_counts_once(redis_client: redis.asyncio.Redis, environment: dict[str, str]) -> None:
    await shop.held.enqueue_many([(("gate",), {})] * 2)
    arguments = (SHOP, "-q", "mail", "-c", "1", "-p", "2", "--grace", "60")
    with WorkerCommand(*arguments, environment=environment, process_group=0) as command:
        told = Told(redis_client)
        await told.wait("began", 2)

        # A terminal sends SIGINT to the whole group in front.
        os.killpg(command.pid, signal.SIGINT)
        await stopping(command, 2)
        await redis_client.rpush(shop.key("gate"), "go", "go")
        code = await ended(command)

    assert code == 0
    assert not command.find("stopping without grace")
    assert len(await told.wait("ended", 2)) == 2


async def test_a_signal_to_every_process_counts_once(
    redis_client: redis.asyncio.Redis, environment: dict[str, str]
) -> None:
    await shop.held.enqueue_many([(("gate",), {})] * 2)
    arguments = (SHOP, "-q", "mail", "-c", "1", "-p", "2", "--grace", "60")
    with WorkerCommand(*arguments, environment=environment) as command:
        told = Told(redis_client)
        await told.wait("began", 2)

        # So does systemd, to everything in the control group.
        for pid in [*(child.pid for child in command.children()), command.pid]:
            os.kill(pid, signal.SIGTERM)
        await stopping(command, 2)
        await redis_client.rpush(shop.key("gate"), "go", "go")
        code = await ended(command)

    assert code == 0
    assert not command.find("stopping without grace")
    assert len(await told.wait("ended", 2)) == 2


async def test_a_third_signal_ends_a_worker_that_hangs(environment: dict[str, str]) -> None:
    with WorkerCommand(SHOP, "-q", "mail", environment=environment | {"SHOP_HANGS": "1"}) as command:
        await logged(command, "worker started")

        for message in ("stopping gracefully; another signal stops at once", "stopping without grace"):
            command.send(signal.SIGTERM)
            await logged(command, message)
        command.send(signal.SIGTERM)
        code = await ended(command)

    assert code == -signal.SIGTERM


async def test_a_terminal_that_goes_away_stops_gracefully(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    with WorkerCommand(SHOP, "-q", "mail", "-p", "2", environment=environment, stdin=theirs) as command:
        os.close(theirs)
        await logged(command, "worker process started", 2)

        os.close(ours)
        command.send(signal.SIGHUP)
        code = await ended(command)

    assert code == 0
    assert command.find("stopping gracefully; the terminal is gone")
    assert not command.find("restarting")


# Crashes


async def test_a_killed_child_is_replaced_and_its_jobs_end_within_the_lease_and_a_second(
    redis_client: redis.asyncio.Redis, environment: dict[str, str], stalls: Stalls
) -> None:
    jobs = await shop.held.enqueue_many([(("gate",), {})] * 8)
    with WorkerCommand(SHOP, "-q", "mail", "-c", "4", "-p", "2", environment=environment) as command:
        told = Told(redis_client)
        began = await told.wait("began", 8)
        killed = began[0][1]
        lost = {job for _, pid, job, _ in began if pid == killed}

        os.kill(killed, signal.SIGKILL)
        killed_at = time.time()
        await redis_client.rpush(shop.key("gate"), *"go" * 8)
        done = await told.wait("ended", 8)
        await logged(command, "worker process started", 3)
        code = await asyncio.to_thread(command.terminate)
        summary = command.summary()

    crash = command.find("worker process ended by itself")
    assert [(line["child"], line["end"]) for line in crash] == [(killed, "signal SIGKILL")]
    assert len(lost) == 4
    assert {job for _, pid, job, _ in done if pid != killed} == {job.id for job in jobs}
    # No longer than the lease and a second, nor than the machine stood still.
    assert max(at for _, _, job, at in done if job in lost) - killed_at < LEASE + 1.0 + stalls.seconds
    assert code == 0
    assert (summary["total"]["crashes"], summary["total"]["starts"]) == ("1", "3")


async def test_children_end_by_themselves_when_the_supervisor_is_killed(
    redis_client: redis.asyncio.Redis, environment: dict[str, str]
) -> None:
    jobs = await shop.held.enqueue_many([(("never",), {})] * 2)
    arguments = (SHOP, "-q", "mail", "-c", "1", "-p", "2", "--grace", "0.1")
    with WorkerCommand(*arguments, environment=environment) as command:
        began = await Told(redis_client).wait("began", 2)
        children = {pid for _, pid, _, _ in began}

        command.send(signal.SIGKILL)
        for pid in children:
            await asyncio.to_thread(wait_ended, pid, DEADLINE)

    assert len(children) == 2
    for job in jobs:
        await job.refresh()
        assert (job.status, job.attempts) == (JobStatus.WAITING, 0)


# Restarting


async def feed(stop: asyncio.Event) -> list[str]:
    """Enqueue jobs all the time until told."""
    ids: list[str] = []
    while not stop.is_set():
        ids += [job.id for job in await shop.count.enqueue_many([((), {})] * 2)]
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.02)
    return ids


def least_running(command: WorkerCommand, processes: int) -> int:
    """Count the workers that run after each line of the log, from when all had started first; returns the least."""
    running: set[int] = set()
    least = processes
    full = False
    for line in command.lines:
        if line["message"] == "worker started":
            running.add(line["pid"])
        elif line["message"].startswith("stopping"):
            running.discard(line["pid"])
        full = full or len(running) == processes
        if full:
            least = min(least, len(running))
    return least


async def test_a_rolling_restart_loses_nothing_and_keeps_the_capacity(
    redis_client: redis.asyncio.Redis, environment: dict[str, str]
) -> None:
    with WorkerCommand(SHOP, "-q", "mail", "-c", "4", "-p", "2", environment=environment) as command:
        await logged(command, "worker process started", 2)
        former = {child.pid for child in command.children()}
        enough = asyncio.Event()
        feeding = asyncio.create_task(feed(enough))

        command.send(signal.SIGHUP)
        await logged(command, "all worker processes are new")
        least = least_running(command, 2)
        present = {child.pid for child in command.children()}
        enough.set()
        ids = await feeding
        async with asyncio.timeout(DEADLINE):
            await shop.app.queue("mail").drain()
        code = await asyncio.to_thread(command.terminate)

    runs = await redis_client.hgetall(shop.key("runs"))
    assert least == 2
    assert len(present) == len(former) == 2
    assert not present & former
    assert runs == dict.fromkeys(ids, "1")
    assert len(ids) > 50
    assert code == 0


@pytest.mark.usefixtures("redis_client")
async def test_one_process_restarts_under_the_same_process_id(environment: dict[str, str]) -> None:
    with WorkerCommand(SHOP, "-q", "mail", environment=environment) as command:
        await logged(command, "worker started")

        command.send(signal.SIGHUP)
        await logged(command, "worker started", 2, pid=command.pid)
        job = await shop.add.enqueue(20, 22)
        result = await job.result(timeout=DEADLINE)
        code = await asyncio.to_thread(command.terminate)

    assert result == 42
    assert code == 0


APP = """
import os
from headrace import Headrace

app = Headrace()

@app.task(queue="mail", name="tests.apps.shop.add", keep_result=60)
async def add(one: int, two: int) -> int:
    return {answer}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(APP.format(answer="one + two"))
    return tmp_path


@pytest.mark.usefixtures("redis_client")
async def test_a_restart_onto_broken_code_leaves_the_former_processes_at_work(
    environment: dict[str, str], folder: Path
) -> None:
    with WorkerCommand("own:app", "-p", "2", environment=environment, cwd=folder) as command:
        await logged(command, "worker process started", 2)
        former = {child.pid for child in command.children()}
        (folder / "own.py").write_text("app = Headrace()\n")

        command.send(signal.SIGHUP)
        line = await logged(command, "new worker process did not start; the restart is given up")
        result = await (await shop.add.enqueue(20, 22)).result(timeout=DEADLINE)
        present = {child.pid for child in command.children()}
        code = await asyncio.to_thread(command.terminate)

    assert "importing 'own' failed: NameError: name 'Headrace' is not defined" in line["reason"]
    assert f"({folder / 'own.py'}, line 1)" in line["reason"]
    assert line["former_goes_on"] is True
    assert result == 42
    assert present == former
    assert code == 0


@pytest.mark.usefixtures("redis_client")
async def test_reload_restarts_when_code_changes(environment: dict[str, str], folder: Path) -> None:
    with WorkerCommand("own:app", "--reload", environment=environment, cwd=folder) as command:
        await logged(command, "worker process started")
        first = await (await shop.add.enqueue(20, 22)).result(timeout=DEADLINE)

        (folder / "notes.txt").write_text("no code")
        (folder / "own.py").write_text(APP.format(answer="one * two"))
        await logged(command, "all worker processes are new")
        second = await (await shop.add.enqueue(20, 22)).result(timeout=DEADLINE)
        code = await asyncio.to_thread(command.terminate)

    assert (first, second) == (42, 440)
    assert command.find("code changed; restarting", files="own.py")
    assert code == 0


def test_reload_without_its_package_says_what_to_install(environment: dict[str, str]) -> None:
    without = "import sys; sys.modules['watchfiles'] = None; from headrace.cli import main; main()"
    with WorkerCommand(SHOP, "--reload", environment=environment, program=("-c", without)) as command:
        code = command.wait()

    assert code == 2
    assert "".join(command.text) == (
        "OptionError: --reload needs the package watchfiles, which is not installed. "
        "Install it: pip install 'headrace[reload]'.\n"
    )


# The command line


@pytest.mark.usefixtures("redis_client")
@pytest.mark.parametrize("processes", ["1", "3"])
async def test_burst_runs_what_is_due_and_ends_with_a_summary(environment: dict[str, str], processes: str) -> None:
    jobs = await shop.add.enqueue_many([((number, 1), {}) for number in range(50)])
    with WorkerCommand(SHOP, "-p", processes, "--burst", environment=environment) as command:
        code = await ended(command)
        summary = command.summary()

    assert code == 0
    assert await jobs[-1].result(timeout=DEADLINE) == 50
    assert list(summary) == (["1"] if processes == "1" else ["1", "2", "3", "total"])
    total = summary["1" if processes == "1" else "total"]
    assert (total["completed"], total["failed"], total["retried"], total["crashes"]) == ("50", "0", "0", "0")
    assert float(total["jobs/s"]) > 0


async def test_a_queue_uses_no_more_slots_than_it_may(
    redis_client: redis.asyncio.Redis, environment: dict[str, str]
) -> None:
    await shop.crowd.enqueue_many([((0.05,), {})] * 20)
    arguments = (SHOP, "-q", "mail", "-q", "bulk=3", "-c", "10", "--burst")
    with WorkerCommand(*arguments, environment=environment) as command:
        code = await ended(command)
        summary = command.summary()

    assert code == 0
    assert summary["1"]["completed"] == "20"
    assert await redis_client.zscore(shop.key("highest"), "all") == 3


@pytest.mark.usefixtures("redis_client")
@pytest.mark.parametrize(("option", "module"), [("--uvloop", "uvloop"), ("--no-uvloop", "asyncio.unix_events")])
async def test_uvloop_is_used_unless_it_is_not_wanted(environment: dict[str, str], option: str, module: str) -> None:
    job = await shop.loop_module.enqueue()
    with WorkerCommand(SHOP, "--burst", option, environment=environment) as command:
        await ended(command)

    assert await job.result(timeout=DEADLINE) == module


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("tests.apps.shp:app", "there is no module 'tests.apps.shp'"),
        ("tests.apps.shop:ap", "module 'tests.apps.shop' has no 'ap'. Did you mean tests.apps.shop:app?"),
        ("tests.apps.shop:not_an_app", "expected a Headrace app, found a value of type int."),
    ],
)
def test_a_wrong_app_ends_with_code_2_and_is_said_once(
    environment: dict[str, str], place: str, sentence: str, processes: str
) -> None:
    with WorkerCommand(place, "-p", processes, environment=environment) as command:
        code = command.wait()

    said = [line for line in command.text if sentence in line]
    assert code == 2
    assert len(said) == 1
    assert said[0].startswith("OptionError: ")
    assert not command.find("worker process ended by itself")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-q", "bulk=x"), "-q bulk=x: expected NAME or NAME=SLOTS with SLOTS a whole number from 1 to 10000."),
        (("-q", "bulk=0"), "-q bulk=0: expected NAME or NAME=SLOTS"),
        (("-q", "bulk=10001"), "-q bulk=10001: expected NAME or NAME=SLOTS"),
        (("-q", "bulk", "-q", "bulk=2"), "-q bulk=2: queue 'bulk' is named twice. Name it once."),
        (("-c", "0"), "'--concurrency': Input should be greater than or equal to 1"),
        (("-p", "257"), "'--processes': Input should be less than or equal to 256"),
        (("--grace", "nan"), "'--grace': Input should be less than or equal to 3600"),
    ],
)
def test_a_wrong_option_ends_with_code_2(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        make_group().main(["worker", SHOP, *arguments])

    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_wrong_name_of_a_queue_ends_with_code_2(environment: dict[str, str]) -> None:
    with WorkerCommand(SHOP, "-q", "no good", environment=environment) as command:
        code = command.wait()

    assert code == 2
    assert command.text[-1].startswith("OptionError: ")


def test_a_server_that_cannot_be_reached_ends_one_process_with_code_1(environment: dict[str, str]) -> None:
    with WorkerCommand(SHOP, environment=environment | NOWHERE) as command:
        code = command.wait()

    assert code == 1
    assert command.text[-1].startswith("ConnectionLost: ")


def test_children_wait_for_a_server_that_cannot_be_reached(environment: dict[str, str]) -> None:
    with WorkerCommand(SHOP, "-p", "2", environment=environment | NOWHERE) as command:
        line = command.wait_line("worker process ended by itself", 3)
        code = command.terminate()

    assert "ConnectionLost: " in line["reason"]
    assert code == 0


async def test_the_supervisor_has_no_connection_and_is_small(
    redis_client: redis.asyncio.Redis, environment: dict[str, str]
) -> None:
    with WorkerCommand(SHOP, "-p", "2", environment=environment) as command:
        await logged(command, "worker process started", 2)
        children = command.children()
        connected = {int(each["name"].split(":")[2]) for each in await redis_client.client_list() if each["name"]}
        parent_rss, child_rss = (psutil.Process(pid).memory_info().rss for pid in (command.pid, children[0].pid))
        await asyncio.to_thread(command.terminate)

    assert connected == {os.getpid(), *(child.pid for child in children)}
    assert parent_rss < 0.75 * child_rss
