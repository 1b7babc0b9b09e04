"""`/metrics` of real worker processes: one, two behind one port, one that hangs, and a server that is stopped."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from headrace import Headrace
from headrace.ids import random_name
from headrace.telemetry.metrics import METRICS, Scope, Type
from headrace.telemetry.prometheus import CONTENT_TYPE
from tests.apps import shop
from tests.support.cluster import free_ports
from tests.telemetry.scraped import Scraped
from tests.worker.command import SHOP, WorkerCommand

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer

DEADLINE = 20.0
#: What only a supervisor tells of, and what only some processes have to tell of.
SUPERVISED = {"headrace_process_starts_total", "headrace_process_crashes_total"}
SOMETIMES = {"headrace_lease_age_seconds", "headrace_pool_errors_total", "headrace_memory_group_events_total"}


def fetch(port: int, method: str = "GET") -> tuple[int, str, str, float]:
    """Send one request; returns status, type, body and seconds, 0 where nobody listens."""
    began = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as client:
        try:
            client.request(method, "/metrics")
            response = client.getresponse()
            body = response.read().decode()
        except OSError:
            return 0, "", "", 0.0
        return response.status, response.getheader("Content-Type", ""), body, time.monotonic() - began


def scrape(port: int) -> Scraped:
    status, kind, text, _ = fetch(port)
    assert (status, kind) == (200, CONTENT_TYPE)
    found = Scraped(text)
    found.check()
    return found


def until_told(port: int, name: str, value: float, **labels: str) -> Scraped:
    """Scrape until a metric has a value."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = scrape(port) if fetch(port)[0] else None
        if found is not None and found.values(name, **labels) == [value]:
            return found
        assert time.monotonic() < deadline, f"{name} is never {value}: {found and found.values(name)}"
        time.sleep(0.05)


@pytest.fixture
def environment(own_server: PrivateServer) -> dict[str, str]:
    return {"REDIS_URL": own_server.url, "HEADRACE_PREFIX": f"t-{random_name(8)}"}


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def enqueue(environment: dict[str, str], count: int) -> None:
    """Enqueue jobs that end at once."""

    async def add() -> None:
        async with Headrace(environment["REDIS_URL"], settings={"prefix": environment["HEADRACE_PREFIX"]}) as app:
            task = app.task(name=shop.add.name, queue="mail")(_add)
            await task.enqueue_many([((1, 2), {})] * count)

    asyncio.run(add())


async def _add(one: int, two: int) -> int:
    return one + two


def test_one_process_tells_everything_that_is_declared(environment: dict[str, str], port: int) -> None:
    options = ("-q", "mail", "-c", "7", "--health-port", str(port))
    with WorkerCommand(SHOP, *options, environment=environment) as command:
        until_told(port, "headrace_workers_consuming", 1)
        enqueue(environment, 40)
        found = until_told(port, "headrace_jobs_settled_total", 40, outcome="completed")
        last = until_told(port, "headrace_queue_settled_total", 40, queue="mail", outcome="completed")
        status, _, body, _ = fetch(port, "HEAD")

        assert command.terminate() == 0
    assert {metric.name for metric in METRICS} - found.families.keys() - SUPERVISED - SOMETIMES == set()
    assert found.value("headrace_slots", process="1") == 7
    assert last.value("headrace_queue_consumers", queue="mail") == 1
    assert last.value("headrace_processes_answered") == last.value("headrace_processes") == 1
    assert (status, body) == (200, "")


def test_one_scrape_tells_of_all_processes_also_when_one_hangs(environment: dict[str, str], port: int) -> None:
    options = ("-q", "mail", "-p", "2", "-c", "3", "--health-port", str(port))
    with WorkerCommand(SHOP, *options, environment=environment) as command:
        until_told(port, "headrace_processes_answered", 2)
        enqueue(environment, 200)
        until_told(port, "headrace_queue_settled_total", 200, queue="mail", outcome="completed")
        both = scrape(port)
        # Each process hangs once: the one that is asked for the queues, and the other.
        hung = []
        for child in command.children():
            os.kill(child.pid, signal.SIGSTOP)
            try:
                answers = [fetch(port) for _ in range(3)]
            finally:
                os.kill(child.pid, signal.SIGCONT)
            # The best of three: others may use the machine.
            hung.append(min(((seconds, text) for *_, text, seconds in answers if "server_up 1" in text)))
            until_told(port, "headrace_processes_answered", 2)
        os.kill(min(child.pid for child in command.children()), signal.SIGKILL)
        after = until_told(port, "headrace_processes_answered", 1)
        until_told(port, "headrace_processes_answered", 2)

        assert command.terminate() == 0
    own = {
        metric.name + ("_count" if metric.type is Type.HISTOGRAM else "")
        for metric in METRICS
        if metric.scope is Scope.PROCESS and metric.name not in SOMETIMES
    }
    assert {name for name in own if both.labels(name, "process") != {"1", "2"}} == set()
    assert sum(both.values("headrace_jobs_settled_total", outcome="completed")) == 200
    assert both.values("headrace_slots") == [3, 3]
    # Told once, and not by each process.
    assert both.values("headrace_queue_settled_total", queue="mail", outcome="completed") == [200]
    for seconds, text in hung:
        found = Scraped(text)
        assert seconds < 1.0
        assert (found.value("headrace_processes"), found.value("headrace_processes_answered")) == (2, 1)
        assert found.value("headrace_server_up") == 1
        assert found.value("headrace_queue_settled_total", queue="mail", outcome="completed") == 200
    assert sum(after.values("headrace_process_crashes_total")) == 1


def test_a_server_that_stands_still_leaves_the_figures_of_the_process(
    environment: dict[str, str], port: int, own_server: PrivateServer
) -> None:
    options = ("-q", "mail", "--health-port", str(port))
    with WorkerCommand(SHOP, *options, environment=environment) as command:
        until_told(port, "headrace_server_up", 1)

        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            found = until_told(port, "headrace_server_up", 0)
            seconds = min(fetch(port)[3] for _ in range(3))
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        until_told(port, "headrace_server_up", 1)

        assert command.terminate() == 0
    assert seconds < 1.0
    assert found.value("headrace_workers") == 1
    assert found.labels("headrace_queue_jobs", "queue") == set()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_without_the_library_the_answer_says_what_to_install(
    environment: dict[str, str], port: int, processes: str, tmp_path: Path
) -> None:
    # It stands in front of the real one.
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('no such library')\n")
    environment = {**environment, "PYTHONPATH": str(tmp_path)}
    options = ("-q", "mail", "-p", processes, "--health-port", str(port))
    with WorkerCommand(SHOP, *options, environment=environment) as command:
        command.wait_line("worker started", int(processes))
        status, kind, body, _ = fetch(port)

        assert command.terminate() == 0
    assert (status, kind) == (501, "application/json")
    assert "pip install 'headrace[metrics]'" in json.loads(body)["error"]
