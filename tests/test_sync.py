"""Enqueue from synchronous code: threads, forked children, inside a loop, before anything is open."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace, JobStatus
from headrace.errors import ArgumentError, ConnectionLost
from headrace.ids import IdSource
from headrace.pool.address import parse_address
from headrace.server import start_private_server
from tests.live import DEADLINE, work_off

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace import Job
    from headrace.pool.address import Address
    from tests.support.raw import Raw


def count_connections(raw: Raw) -> int:
    """Count the connections that synchronous code of this process has open."""
    return str(raw("CLIENT", "LIST")).count(f":{os.getpid()}:sync ")


def run_child(code: Callable[[], object]) -> int:
    """Run code in a forked child and return its exit code; nothing of the parent's test goes on in there."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            code()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + DEADLINE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        assert time.monotonic() < deadline, "the child did not end"
        time.sleep(0.005)


def completed(app: Headrace, jobs: list[Job[Any]]) -> list[Any]:
    async def run() -> list[Any]:
        async with app:
            await work_off(app)
            return [await job.result(DEADLINE) for job in jobs]

    return asyncio.run(run())


def test_a_job_is_enqueued_without_a_loop_and_run_by_a_worker(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="double")
    async def double(number: int, *, plus: int = 0) -> int:
        return 2 * number + plus

    jobs = [double.enqueue_sync(1), double.using(priority=20).enqueue_sync(2, plus=1)]

    assert [job.status for job in jobs] == [JobStatus.WAITING] * 2
    assert completed(app, jobs) == [2, 5]


def test_wrong_arguments_are_refused_before_a_connection_is_made(make_app: Callable[..., Headrace]) -> None:
    app = make_app("unix:///nonexistent/server.sock")

    @app.task(name="double")
    def double(number: int) -> int:
        return 2 * number

    with pytest.raises(ArgumentError, match="Expected `int`"):
        double.enqueue_sync("one")  # type: ignore[arg-type]  # the mistake under test
    assert not app._sync.is_open


def test_a_server_that_is_not_there_is_an_error_in_time(make_app: Callable[..., Headrace]) -> None:
    app = make_app("unix:///nonexistent/server.sock", redis_acquire_timeout=0.2)

    @app.task(name="work")
    def work() -> None: ...

    began = time.monotonic()
    with pytest.raises(ConnectionLost, match=r"nonexistent/server\.sock.*Check that the server runs"):
        work.enqueue_sync()

    assert time.monotonic() - began < 5
    app.close_sync()


# Threads


def test_threads_enqueue_over_one_connection(
    make_app: Callable[..., Headrace], raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()

    def slow_address(url: str) -> Address:
        # So that every thread comes before the first has made the connection.
        time.sleep(0.05)
        return parse_address(url)

    monkeypatch.setattr("headrace.pool.address.parse_address", slow_address)
    threads_count, jobs_count = 8, 25
    together = threading.Barrier(threads_count)
    jobs: list[Job[int]] = []

    @app.task(name="same")
    async def same(number: int) -> int:
        return number

    def enqueue(first: int) -> None:
        together.wait(DEADLINE)
        jobs.extend(same.enqueue_sync(first + number) for number in range(jobs_count))

    threads = [threading.Thread(target=enqueue, args=(1_000 * index,)) for index in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    # Each thread found no connection at first; one of them made it.
    assert count_connections(raw) == 1
    assert len({job.id for job in jobs}) == threads_count * jobs_count
    assert sorted(completed(app, jobs)) == sorted(
        1_000 * index + number for index in range(threads_count) for number in range(jobs_count)
    )


def test_closing_in_one_thread_while_others_enqueue_loses_nothing(make_app: Callable[..., Headrace], raw: Raw) -> None:
    app = make_app()
    jobs: list[Job[int]] = []
    ended = threading.Event()

    @app.task(name="same")
    async def same(number: int) -> int:
        return number

    def enqueue() -> None:
        try:
            for number in range(200):
                jobs.append(same.enqueue_sync(number))  # noqa: PERF401 - what was accepted before an error counts
        finally:
            ended.set()

    thread = threading.Thread(target=enqueue)
    thread.start()
    while not ended.wait(0.001):
        app.close_sync()
    thread.join(DEADLINE)
    app.close_sync()

    assert len(jobs) == 200
    assert sorted(completed(app, jobs)) == list(range(200))
    assert count_connections(raw) == 0


def test_ids_made_by_threads_at_once_are_all_different_also_when_the_counter_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.ids._COUNTER_LIMIT", 3)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    source = IdSource()
    made: list[list[str]] = []
    together = threading.Barrier(8)

    def make() -> None:
        together.wait(DEADLINE)
        made.append([source.make() for _ in range(10_000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    sys.setswitchinterval(interval)

    ids = [one for ids in made for one in ids]
    assert len(set(ids)) == len(ids) == 80_000


# Forks


def test_a_forked_child_enqueues_over_a_connection_of_its_own(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="same")
    async def same(text: str) -> str:
        return text

    jobs = [same.enqueue_sync("parent before")]
    assert run_child(lambda: [same.enqueue_sync("child") for _ in range(3)]) == 0
    jobs.append(same.enqueue_sync("parent after"))

    async def results() -> list[Any]:
        async with app:
            assert (await app.queue("default").stats()).waiting == 5
            await work_off(app)
            return [await job.result(DEADLINE) for job in jobs]

    assert asyncio.run(results()) == ["parent before", "parent after"]


def test_children_forked_while_another_thread_enqueues_are_not_held_up(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    stop = threading.Event()
    count = 0

    @app.task(name="work")
    async def work() -> None: ...

    def enqueue() -> None:
        nonlocal count
        while not stop.is_set():
            work.enqueue_sync()
            count += 1

    thread = threading.Thread(target=enqueue)
    thread.start()
    try:
        codes = [run_child(work.enqueue_sync) for _ in range(10)]
    finally:
        stop.set()
        thread.join(DEADLINE)

    async def waiting() -> int:
        async with app:
            return (await app.queue("default").stats()).waiting

    assert codes == [0] * 10
    assert asyncio.run(waiting()) == count + 10


def test_ids_of_parent_and_child_differ(make_app: Callable[..., Headrace], tmp_path: Path) -> None:
    app = make_app()

    @app.task(name="work")
    async def work() -> None: ...

    first = work.enqueue_sync().id
    run_child(lambda: (tmp_path / "id").write_text(work.enqueue_sync().id))
    second = work.enqueue_sync().id
    child = (tmp_path / "id").read_text()
    app.close_sync()

    assert first[:12] == second[:12]
    assert child[:12] != first[:12]


# Inside a loop


async def test_enqueue_sync_works_inside_a_running_loop(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    async with app:
        job = double.enqueue_sync(21)
        await work_off(app)

        assert await job.result(DEADLINE) == 42
    assert not app._sync.is_open


async def test_a_plain_task_enqueues_from_its_thread(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="inner")
    async def inner(number: int) -> int:
        return number + 1

    @app.task(name="outer")
    def outer(number: int) -> str:
        return inner.enqueue_sync(number).id

    async with app:
        first = await outer.enqueue(1)
        await work_off(app)
        second = app.queue("default").job(await first.result(DEADLINE))

        assert await second.result(DEADLINE) == 2


# Breaks


def test_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    with start_private_server(tmp_path) as server:
        app = Headrace(server.url)

        @app.task(name="same")
        async def same(number: int) -> int:
            return number

        jobs = [same.enqueue_sync(1)]
        server.restart()
        jobs.append(same.enqueue_sync(2))

        assert completed(app, jobs) == [1, 2]


def test_a_server_that_comes_back_late_is_waited_for(tmp_path: Path) -> None:
    with start_private_server(tmp_path) as server:
        app = Headrace(server.url)

        @app.task(name="same")
        async def same(number: int) -> int:
            return number

        jobs = [same.enqueue_sync(1)]
        server.stop()
        starting = threading.Timer(0.2, server.start)
        starting.start()
        jobs.append(same.enqueue_sync(2))
        starting.join(DEADLINE)

        assert completed(app, jobs) == [1, 2]
