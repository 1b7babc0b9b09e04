"""Child processes that die, are killed, are closed: each is replaced, and none is left on any loop or system."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from headrace import Fixed, Headrace, JobStatus
from headrace.errors import JobCancelled
from headrace.worker import processes
from tests.live import DEADLINE, fresh_app, opened, until, working
from tests.server.processes import runs, wait_ended
from tests.worker import process_tasks
from tests.worker.children import add, children, door, failure_of, no_child_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from headrace.server import PrivateServer

SOON = 0.3


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    with no_child_left():
        yield


@pytest.fixture
async def app(server: PrivateServer) -> AsyncIterator[Headrace]:
    async with opened(fresh_app(server.url, keep_result=60, processes=1)) as app:
        yield app


# Children that end by themselves


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (process_tasks.exit_hard, (3,), "ended with exit status 3"),
        (process_tasks.crash, (), "was killed by SIGSEGV. Native code crashed"),
        (process_tasks.die_of, (int(signal.SIGKILL),), "was killed by SIGKILL, not by its worker"),
        (process_tasks.write_garbage, (), "wrote to a descriptor that is not its own"),
    ],
)
async def test_a_child_that_dies_fails_its_job_and_is_replaced(
    app: Headrace, function: Callable[..., Any], arguments: tuple[Any, ...], said: str
) -> None:
    die, pid = add(app, function), add(app, process_tasks.pid)

    async with working(app):
        before = await (await pid.enqueue()).result(timeout=DEADLINE)
        bad = await die.enqueue(*arguments)
        good = await pid.enqueue()

        error, message = await failure_of(bad)
        after = await good.result(timeout=DEADLINE)

    assert error in {"ProcessDied", "RecordCorrupt"}
    assert said in message
    assert before != after


async def test_a_job_whose_child_died_is_tried_again_whatever_retry_on_lists(app: Headrace, tmp_path: Any) -> None:
    once = add(app, process_tasks.die_once, attempts=2, backoff=Fixed(0.0), retry_on=KeyError)

    async with working(app):
        job = await once.enqueue(str(tmp_path / "died"))

        assert await job.result(timeout=DEADLINE) == "second time"


async def test_an_idle_child_that_is_killed_costs_no_job(app: Headrace) -> None:
    pid = add(app, process_tasks.pid)

    async with working(app):
        before = await (await pid.enqueue()).result(timeout=DEADLINE)
        # Both before the loop hears of it, and after.
        os.kill(before, signal.SIGKILL)
        wait_ended(before)
        between = await (await pid.enqueue()).result(timeout=DEADLINE)
        os.kill(between, signal.SIGKILL)

        async def probe() -> bool:
            return children(app) == []

        await until(probe, "the child leaves the census")
        after = await (await pid.enqueue()).result(timeout=DEADLINE)

    assert len({before, between, after}) == 3


# Being killed


async def test_timeout_kills_the_child_and_what_it_started(app: Headrace) -> None:
    hang = add(app, process_tasks.visit_and_hang, timeout=SOON)

    async with door() as (inside, port), working(app):
        job = await hang.enqueue(port)
        pids = await inside.next()
        error, message = await failure_of(job)

        assert error == "JobTimeout"
        assert "killed" in message
        assert "timeout=" in message
        for pid in pids:
            wait_ended(pid)
        assert children(app) == []


async def test_timeout_of_one_call_wins_over_that_of_the_task(app: Headrace) -> None:
    visit = add(app, process_tasks.visit, timeout=600.0)

    async with door() as (_, port), working(app):
        error, _ = await failure_of(await visit.using(timeout=SOON).enqueue(port))

    assert error == "JobTimeout"


async def test_cancel_kills_the_child(app: Headrace) -> None:
    hang = add(app, process_tasks.visit_and_hang)

    async with door() as (inside, port), working(app):
        job = await hang.enqueue(port)
        pids = await inside.next()
        assert await job.cancel()

        with pytest.raises(JobCancelled):
            await job.result(timeout=DEADLINE)
        for pid in pids:
            wait_ended(pid)


async def test_a_job_that_is_cancelled_while_it_waits_is_never_run(app: Headrace) -> None:
    visit = add(app, process_tasks.visit)

    async with door() as (inside, port), working(app) as worker:
        holder = await visit.enqueue(port)
        await inside.next()
        waiting = await visit.enqueue(port)

        async def probe() -> bool:
            return worker.stats().running == 2

        await until(probe, "both jobs have a slot")
        assert await waiting.cancel()
        with pytest.raises(JobCancelled):
            await waiting.result(timeout=DEADLINE)
        inside.let_go()
        await holder.result(timeout=DEADLINE)

        assert inside.visits.empty()


async def test_timeouts_begin_when_a_child_takes_the_job(app: Headrace) -> None:
    visit = add(app, process_tasks.visit, timeout=DEADLINE)
    pid = add(app, process_tasks.pid, timeout=SOON)

    @app.task(timeout=2 * SOON, attempts=1)
    async def clock() -> None:
        await asyncio.sleep(DEADLINE)

    async with door() as (inside, port), working(app) as worker:
        holder = await visit.enqueue(port)
        await inside.next()
        job = await pid.enqueue()

        async def probe() -> bool:
            return worker.stats().running == 2

        await until(probe, "both jobs have a slot")
        # The job waits for the only child for twice its timeout, as the timeout of another job shows.
        await failure_of(await clock.enqueue())
        inside.let_go()
        await holder.result(timeout=DEADLINE)

        assert await job.result(timeout=DEADLINE) > 0


# At the end of the worker


async def test_a_stopping_worker_kills_the_child_of_a_running_job_and_hands_the_job_back(app: Headrace) -> None:
    hang = add(app, process_tasks.visit_and_hang)

    async with door() as (inside, port):
        async with working(app, grace=0.0):
            job = await hang.enqueue(port)
            pids = await inside.next()
        for pid in pids:
            wait_ended(pid)

    await job.refresh()
    assert job.status is JobStatus.WAITING
    assert job.attempts == 0


async def test_a_worker_that_stops_while_a_child_starts_leaves_none(app: Headrace) -> None:
    pid = add(app, process_tasks.pid)

    async with working(app, grace=0.0):
        job = await pid.enqueue()

        async def probe() -> bool:
            return bool(children(app))

        await until(probe, "a child is started")

    await job.refresh()
    assert job.status is JobStatus.WAITING
    assert children(app) == []


async def test_a_child_that_does_not_end_by_itself_is_killed_at_the_end(
    app: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "CLOSE_GRACE", 0.2)
    hang = add(app, process_tasks.hang_at_exit)

    async with working(app):
        pid = await (await hang.enqueue()).result(timeout=DEADLINE)

    assert not runs(pid)
    assert children(app) == []


# Other loops and systems


def until_ended(pid: int) -> None:
    # Without descriptors of processes nothing tells the end of a process that is not one's child; so this one looks.
    deadline = time.monotonic() + DEADLINE
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def full_round(server: PrivateServer) -> None:
    """Run, kill, lose and close children."""
    async with opened(fresh_app(server.url, keep_result=60, processes=2)) as app:
        pid, hang = add(app, process_tasks.pid), add(app, process_tasks.visit_and_hang, timeout=SOON)
        die, large = add(app, process_tasks.exit_hard), add(app, process_tasks.be_large)
        async with door() as (inside, port), working(app):
            first = await (await pid.enqueue()).result(timeout=DEADLINE)
            stuck, dying = await hang.enqueue(port), await die.enqueue(3)
            pids = await inside.next()
            assert (await failure_of(stuck))[0] == "JobTimeout"
            assert (await failure_of(dying))[0] == "ProcessDied"
            for one in pids:
                wait_ended(one)
            last = await (await pid.enqueue()).result(timeout=DEADLINE)
            assert len(await (await large.enqueue(500_000)).result(timeout=DEADLINE)) == 500_000
        assert first != last
        assert not runs(first)
        assert not runs(last)


def test_children_work_under_uvloop(server: PrivateServer) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(full_round(server))


async def test_children_work_without_descriptors_of_processes(
    server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    # The tests' own wait needs one.
    monkeypatch.setitem(globals(), "wait_ended", until_ended)

    await full_round(server)
