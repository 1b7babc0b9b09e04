"""`/livez`, `/readyz` and `/healthz` of real worker processes: through signals, pauses and a lost server."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace
from headrace.ids import random_name
from headrace.worker.supervisor import Supervisor
from tests.apps import shop
from tests.live import until
from tests.support.cluster import free_ports
from tests.support.sick import send
from tests.worker.command import SHOP, WorkerCommand

if TYPE_CHECKING:
    from headrace.server import PrivateServer

DEADLINE = 20.0


def probe(port: int, path: str, timeout: float = 5.0) -> tuple[int, dict[str, Any]]:
    """Send one request; 0 where nobody listens or answers in time."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)) as client:
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            return 0, {}


async def until_code(port: int, path: str, code: int) -> dict[str, Any]:
    """Probe until the answer has this code; returns its body."""
    deadline = time.monotonic() + DEADLINE
    while (found := await asyncio.to_thread(probe, port, path))[0] != code:
        assert time.monotonic() < deadline, f"{path} never {code}: {found}"
        await asyncio.sleep(0.05)
    return found[1]


@pytest.fixture
def environment(own_server: PrivateServer) -> dict[str, str]:
    return {"REDIS_URL": own_server.url, "HEADRACE_PREFIX": f"t-{random_name(8)}", "QUEUE_STALLED_INTERVAL": "1000"}


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


async def test_one_process_from_its_start_to_its_end(environment: dict[str, str], port: int) -> None:
    options = ("-q", "mail", "--grace", "20", "--health-port", str(port))
    with WorkerCommand(SHOP, *options, environment=environment) as command:
        ready = await until_code(port, "/readyz", 200)
        alive = await asyncio.to_thread(probe, port, "/livez")
        code, verdict = await asyncio.to_thread(probe, port, "/healthz")

        assert ready == {"ready": True, "reasons": [], "pid": command.pid}
        assert alive == (200, {"alive": True, "pid": command.pid})
        assert (code, verdict["redis"], verdict["workers"][0]["queues"]) == (200, "healthy", ["mail"])
        assert {check["name"] for check in verdict["checks"]} >= {"eviction policy", "persistence", "clock skew"}

        # All of its queues are paused: it takes no jobs, and lives.
        async with Headrace(environment["REDIS_URL"], settings={"prefix": environment["HEADRACE_PREFIX"]}) as app:
            await app.queue("mail").pause()
            paused = await until_code(port, "/readyz", 503)
            assert "paused" in paused["reasons"][0]
            assert (await asyncio.to_thread(probe, port, "/livez"))[0] == 200
            await app.queue("mail").resume()
            await until_code(port, "/readyz", 200)

        assert command.terminate() == 0
    assert await asyncio.to_thread(probe, port, "/livez") == (0, {})


async def test_a_worker_that_finishes_its_last_job_lives_and_is_not_ready(
    environment: dict[str, str], port: int
) -> None:
    options = ("-q", "mail", "--grace", "20", "--health-port", str(port))
    with WorkerCommand(SHOP, *options, environment=environment) as command:
        await until_code(port, "/readyz", 200)
        async with Headrace(environment["REDIS_URL"], settings={"prefix": environment["HEADRACE_PREFIX"]}) as app:
            task = app.task(name=shop.held.name, queue="mail")(_held)
            await task.enqueue("gate")
            await until(lambda: is_active(app), "the job runs")

            command.send(signal.SIGTERM)
            stopping = await until_code(port, "/readyz", 503)
            alive = await asyncio.to_thread(probe, port, "/livez")
            await open_gate(environment, "gate")
            code = await asyncio.to_thread(command.wait)

    assert "it takes no further jobs" in stopping["reasons"][0]
    assert alive[0] == 200
    assert code == 0


async def _held(gate: str) -> None: ...


async def is_active(app: Headrace) -> bool:
    return bool((await app.queue("mail").stats()).active)


async def open_gate(environment: dict[str, str], gate: str) -> None:
    prefix = environment["HEADRACE_PREFIX"]
    await asyncio.to_thread(send, environment["REDIS_URL"], "RPUSH", f"{prefix}-shop:{gate}", "x")


async def test_a_process_without_its_server_lives_and_is_not_ready(
    environment: dict[str, str], port: int, own_server: PrivateServer
) -> None:
    with WorkerCommand(SHOP, "-q", "mail", "--health-port", str(port), environment=environment) as command:
        await until_code(port, "/readyz", 200)

        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            stopped = await until_code(port, "/readyz", 503)
            alive = await asyncio.to_thread(probe, port, "/livez", 0.5)
            code, verdict = await asyncio.to_thread(probe, port, "/healthz")
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        await until_code(port, "/readyz", 200)
        await until_code(port, "/healthz", 200)

        assert "does not answer" in stopped["reasons"][0]
        assert alive[0] == 200
        assert (code, verdict["redis"]) == (503, "unhealthy")
        assert command.terminate() == 0


async def test_several_processes_answer_on_one_port(environment: dict[str, str], port: int) -> None:
    environment = {**environment, "HEADRACE_HEALTH_PORT": str(port)}
    with WorkerCommand(SHOP, "-q", "mail", "-p", "2", environment=environment) as command:
        ready = await until_code(port, "/readyz", 200)
        children = {child.pid for child in command.children()}
        code, verdict = await asyncio.to_thread(probe, port, "/healthz")

        assert {each["pid"] for each in ready["processes"]} == children
        assert (code, [each["health"]["redis"] for each in verdict["processes"]]) == (200, ["healthy", "healthy"])

        # One of them stands still: the command as a whole is not ready, and need not be restarted.
        hanging = min(children)
        os.kill(hanging, signal.SIGSTOP)
        try:
            stuck = await until_code(port, "/readyz", 503)
            alive = await asyncio.to_thread(probe, port, "/livez", 1.0)
        finally:
            os.kill(hanging, signal.SIGCONT)
        await until_code(port, "/readyz", 200)

        assert ["the process does not answer"] in [each["reasons"] for each in stuck["processes"]]
        assert alive == (200, {"alive": True, "processes": 2, "answering": 1})

        # One of them is killed: another takes its place, and only then it is ready again.
        os.kill(hanging, signal.SIGKILL)
        command.wait_line("worker process ended by itself")
        command.wait_line("worker process started", 3)
        again = await until_code(port, "/readyz", 200)
        assert hanging not in {each["pid"] for each in again["processes"]}

        # All of them hang: only a restart from outside can help.
        pids = [child.pid for child in command.children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        dead = await asyncio.to_thread(probe, port, "/livez")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

        assert dead == (503, {"alive": False, "processes": 2, "answering": 0})
        assert command.terminate() == 0


async def test_a_supervisor_that_is_stopped_before_it_runs_starts_nothing() -> None:
    supervisor = Supervisor([sys.executable, "-c", "raise SystemExit(3)"], 2)
    supervisor.stop()

    await asyncio.wait_for(supervisor.run(), DEADLINE)

    assert [tally.starts for tally in supervisor.tallies] == [0, 0]
    assert supervisor.census.entries() == []


def test_a_signal_right_after_the_port_is_there_stops_gracefully(environment: dict[str, str], port: int) -> None:
    options = ("-q", "mail", "-p", "2", "--health-port", str(port))
    for _ in range(3):
        with WorkerCommand(SHOP, *options, environment=environment) as command:
            command.wait_line("health listener started")
            command.send(signal.SIGINT)

            assert command.wait() == 0


def test_a_port_that_is_taken_ends_the_command(environment: dict[str, str], port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()

        for processes in ("1", "2"):
            options = ("-p", processes, "--health-port", str(port))
            with WorkerCommand(SHOP, *options, environment=environment) as command:
                assert command.wait() == 2
                assert f"HEADRACE_HEALTH_PORT={port}: cannot listen on 127.0.0.1" in "".join(command.text)
