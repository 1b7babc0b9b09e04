"""Queues as their operators see them, on a real server with real workers: stats, pause, drain, clear, list, retry."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace, JobStatus, Priority, current_job
from headrace.errors import JobNotFound, OptionError, ResultTimeout, UsageError
from headrace.queue import QueueStats
from tests.live import (
    DEADLINE,
    exists,
    hold_replies,
    is_waited_for,
    opened,
    sibling,
    until,
    work_off,
    working,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Job
    from headrace.queue import Queue
    from headrace.task import Task


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app() as app:
        yield app


# Stats


async def test_stats_count_the_jobs_of_every_status(app: Headrace) -> None:
    entered, let_go = asyncio.Event(), asyncio.Event()

    @app.task(queue="mail", attempts=2, backoff=Fixed(0.0))
    async def work(what: str) -> None:
        if what == "fail":
            raise ValueError
        if what == "wait":
            entered.set()
            await let_go.wait()

    queue = app.queue("mail")
    for what in ("done", "done", "fail"):
        await work.enqueue(what)
    await work_off(app)
    cancelled = await work.enqueue("done")
    await cancelled.cancel()
    await work.using(delay=60).enqueue("done")
    running = await work.enqueue("wait")
    async with working(app, concurrency=1):
        await asyncio.wait_for(entered.wait(), DEADLINE)
        await queue.pause()
        await work.enqueue_many([(("done",),)] * 3)

        stats = await queue.stats()

        let_go.set()
        await running.result(DEADLINE)
    counts = QueueStats(
        waiting=3, delayed=1, active=1, completed=2, failed=1, cancelled=1, paused=True, workers=1, retried=1,
        stalled=0, throughput=stats.throughput, error_rate=0.5, avg_ms=stats.avg_ms, oldest_ms=stats.oldest_ms,
    )  # fmt: skip
    assert stats == counts
    assert 2 / 120 <= stats.throughput <= 2 / 60
    assert 0 <= stats.avg_ms < 1_000
    assert 0 <= stats.oldest_ms < DEADLINE * 1_000


async def test_stats_of_a_queue_that_was_never_used_are_zero(app: Headrace) -> None:
    stats = await app.queue("new").stats()

    assert not any(dataclasses.astuple(stats))


async def test_the_oldest_job_is_not_one_that_was_cancelled(app: Headrace) -> None:
    @app.task
    async def work() -> None: ...

    queue = app.queue("default")
    old = await work.enqueue()
    await until(lambda: _is_older(queue, 20), "the job grows old")
    await old.cancel()
    alone = await queue.stats()
    began = time.monotonic()
    await work.enqueue()
    beside = await queue.stats()
    passed_ms = (time.monotonic() - began) * 1_000

    assert alone.oldest_ms == 0
    # The server counts whole milliseconds.
    assert beside.oldest_ms <= passed_ms + 1


# Pause


async def test_nothing_starts_while_a_queue_is_paused_and_all_runs_after(
    app: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.worker.flights.plan_prefetch", lambda *_: 8)
    task, gate = _gated(app)
    jobs = await task.enqueue_many([((number,),) for number in range(6)])
    queue = app.queue("default")
    async with working(app, concurrency=2), opened(sibling(app)) as other:
        await until(lambda: _counts(queue, waiting=0, active=6), "the worker holds all")

        assert await other.queue("default").pause()
        assert not await queue.pause()
        await until(lambda: _counts(queue, waiting=4, active=2), "the jobs that were not started are handed back")
        gate.let_go.set()
        await until(lambda: _counts(queue, waiting=4, active=0), "the running jobs end")
        started_while_paused = list(gate.started)

        assert await queue.resume()
        assert not await other.queue("default").resume()
        await asyncio.gather(*(job.result(DEADLINE) for job in jobs))

    assert started_while_paused == [0, 1]
    assert gate.started == list(range(6))
    # Red when: a worker keeps what it holds, or puts it back in another order.


async def test_jobs_that_are_reserved_while_the_pause_is_told_do_not_start(app: Headrace) -> None:
    task, gate = _gated(app)
    gate.let_go.set()
    queue = app.queue("default")
    async with working(app) as worker:
        arrived, let_go = hold_replies(worker)
        job = await task.enqueue(1)
        await asyncio.wait_for(arrived.wait(), DEADLINE)

        await queue.pause()
        await _all_told(app)
        let_go.set()

        await until(lambda: _counts(queue, waiting=1, active=0), "the job is handed back")
        started_while_paused = list(gate.started)
        await queue.resume()
        await job.result(DEADLINE)
    assert started_while_paused == []
    # Red when: the reply of a reserve that is older than the pause ends the pause in the worker.


async def test_a_resume_that_overtakes_the_reply_of_a_paused_reserve_wakes_the_worker(app: Headrace) -> None:
    task, gate = _gated(app)
    gate.let_go.set()
    queue = app.queue("default")
    async with working(app) as worker:
        # The worker does not hear of the pause, so that it asks, and is told "paused" by the reply.
        worker._parts._host.unlisten(worker._parts._told)  # type: ignore[union-attr]  # it runs
        await queue.pause()
        arrived, let_go = hold_replies(worker)
        job = await task.enqueue(1)
        await asyncio.wait_for(arrived.wait(), DEADLINE)

        await worker._parts._host.listen([app.store.queue("default").keys.control], worker._parts._told)  # type: ignore[union-attr]  # it runs
        await queue.resume()
        await _all_told(app)
        let_go.set()

        await job.result(5.0)
    # Red when: an old reply pauses the queue in the worker for good.


# Drain


async def test_drain_waits_until_nothing_is_left_to_do(app: Headrace) -> None:
    task, gate = _gated(app)
    await task.using(delay=0.05).enqueue(1)
    await task.enqueue(2)
    queue = app.queue("default")
    async with working(app):
        draining = asyncio.create_task(queue.drain(DEADLINE))
        await until(lambda: _counts(queue, active=2), "both run")
        assert not draining.done()
        gate.let_go.set()

        await draining

    stats = await queue.stats()
    assert (stats.completed, stats.waiting, stats.delayed, stats.active) == (2, 0, 0, 0)


async def test_a_drain_that_runs_out_says_so(app: Headrace) -> None:
    task, _ = _gated(app)
    await task.enqueue(1)

    with pytest.raises(ResultTimeout, match=r"queue 'default' was not empty within 0.05 s"):
        await app.queue("default").drain(0.05)


# Clear


@pytest.mark.parametrize("status", ["waiting", "delayed", "completed", "failed", "cancelled"])
async def test_clear_deletes_all_jobs_of_one_status_and_no_other(app: Headrace, status: str) -> None:
    groups = await _one_of_each(app, 3)
    queue = app.queue("default")

    assert await queue.clear(status) == 3
    assert await queue.clear(status) == 0

    for name, jobs in groups.items():
        found = [await exists(job) for job in jobs]
        assert found == [name != status] * 3, name
    assert (await queue.jobs(status)).jobs == []


async def test_clear_counts_only_what_it_deletes(app: Headrace) -> None:
    @app.task
    async def work(number: int) -> None: ...

    jobs = await work.enqueue_many([((number,),) for number in range(2_500)])
    for job in jobs[:3]:
        await job.cancel()

    assert await app.queue("default").clear("waiting") == 2_497
    assert await app.queue("default").clear("cancelled") == 3


async def test_who_waits_for_a_job_hears_that_it_was_cleared(app: Headrace) -> None:
    @app.task
    async def work() -> None: ...

    job = await work.enqueue()
    waiting = asyncio.create_task(job.result(DEADLINE))
    await until(lambda: is_waited_for(app, job), "the wait is entered")
    await app.queue("default").clear("waiting")

    with pytest.raises(JobNotFound):
        await waiting


@pytest.mark.parametrize("status", ["active", "dead", ""])
async def test_clear_refuses_what_cannot_be_cleared(app: Headrace, status: str) -> None:
    with pytest.raises(OptionError, match=f"status '{status}' cannot be cleared"):
        await app.queue("default").clear(status)


# Dead letters


async def test_retry_failed_puts_all_dead_jobs_back_with_their_attempts(app: Headrace) -> None:
    broken, attempts = [True], []

    @app.task(attempts=2, backoff=Fixed(0.0))
    async def work(number: int) -> None:
        attempts.append(current_job().attempt)
        if broken[0]:
            raise ValueError(number)

    await work.enqueue_many([((number,),) for number in range(50)])
    await work_off(app)
    queue = app.queue("default")
    died = (await queue.stats()).failed
    broken[0] = False
    attempts.clear()

    assert await queue.retry_failed() == 50
    assert await queue.retry_failed() == 0
    await work_off(app)

    stats = await queue.stats()
    assert (died, stats.failed, stats.completed) == (50, 0, 50)
    assert attempts == [1] * 50


async def test_queues_that_share_a_dead_letter_queue_get_back_their_own(app: Headrace) -> None:
    broken, ran = [True], []

    async def work(number: int) -> None:
        if broken[0]:
            raise ValueError(number)
        ran.append((current_job().queue, number))

    tasks = {name: app.task(name=name, queue=name, attempts=1, dead_letter="dead")(work) for name in ("mail", "push")}
    for task in tasks.values():
        await task.enqueue_many([((number,),) for number in range(3)])
    await work_off(app)
    shared = app.queue("dead")
    assert {queue.name for queue in await app.queues()} == {"mail", "push", "dead"}
    assert (await shared.stats()).failed == 6
    broken[0] = False

    assert await app.queue("mail").retry_failed() == 3
    assert (await shared.stats()).failed == 3
    assert [(await app.queue(name).stats()).waiting for name in ("mail", "push", "dead")] == [3, 0, 0]

    # An app that knows no task of theirs puts the rest back from the dead-letter queue itself.
    async with opened(sibling(app)) as other:
        assert await other.queue("dead").retry_failed() == 3
    await work_off(app)

    assert sorted(ran) == [(name, number) for name in ("mail", "push") for number in range(3)]
    assert (await shared.stats()).failed == 0


async def test_a_dead_letter_is_found_through_its_own_queue_and_through_the_dead_letter_queue(app: Headrace) -> None:
    @app.task(queue="mail", attempts=1, dead_letter="dead")
    async def work() -> None:
        await current_job().log("trying")
        raise ValueError("no")

    job = await work.using(queue="elsewhere").enqueue()
    await work_off(app, ["elsewhere"])

    for seen in (job, app.queue("dead").job(job.id)):
        await seen.refresh()
        assert await seen.log_lines() == ["trying"]
        assert (seen.status, seen.task, seen.failures[0].message) == (JobStatus.FAILED, work.name, "no")
        assert seen.details is not None
        assert seen.details.origin == "elsewhere"


# Listing


async def test_waiting_jobs_are_listed_once_each_in_the_order_in_which_they_run(app: Headrace) -> None:
    @app.task
    async def work(number: int) -> None: ...

    expected = []
    for priority in (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW):
        jobs = await work.using(priority=priority).enqueue_many([((number,),) for number in range(1_000)])
        for job in jobs[::100]:
            await job.cancel()
        expected += [job.id for at, job in enumerate(jobs) if at % 100]

    for limit in (1_000, 37):
        assert await _list(app.queue("default"), "waiting", limit) == expected


async def test_jobs_of_every_other_status_are_listed_once_each(app: Headrace) -> None:
    count = 1_500

    @app.task(attempts=1, keep_result=600)
    async def work(good: bool) -> None:  # noqa: FBT001 - an argument of a job
        if not good:
            raise ValueError

    queue = app.queue("default")
    ids: dict[str, list[str]] = {}
    for status, good in (("completed", True), ("failed", False)):
        ids[status] = [job.id for job in await work.enqueue_many([((good,),)] * count)]
        await work_off(app, concurrency=100)
    delayed = await work.using(delay=60).enqueue_many([((True,),)] * 2 * count)
    await asyncio.gather(*(job.cancel() for job in delayed[count:]))
    ids["delayed"] = [job.id for job in delayed[:count]]
    ids["cancelled"] = [job.id for job in delayed[count:]]
    ids["active"] = [job.id for job in await work.enqueue_many([((True,),)] * count)]
    store, calls = app.store, app.store.queue("default")
    await store.run(app.control, [store.pack_reserve(calls, "somebody", 60_000, count, 0)])

    listed = {status: await _list(queue, status, 100) for status in ids}

    for status, found in listed.items():
        assert sorted(found) == sorted(ids[status]), status
    assert listed["delayed"] == ids["delayed"]
    # What the lease of nobody holds is given back, so that the keys make sense at the end.
    await store.run(app.control, [store.pack_reserve(calls, "somebody", 60_000, 0, 0)])


async def test_a_listing_refuses_a_wrong_status_limit_or_cursor(app: Headrace) -> None:
    queue = app.queue("default")

    with pytest.raises(OptionError, match="status 'dead': expected one of waiting, delayed"):
        await queue.jobs("dead")
    for limit in (0, 1_001, 10**30):
        with pytest.raises(OptionError, match=f"limit={limit}: expected a whole number from 1 to 1000"):
            await queue.jobs("waiting", limit=limit)
    for cursor in ("x", "-1", "1.5", "9" * 30):
        for status in ("waiting", "active", "failed"):
            with pytest.raises(OptionError, match="cursor="):
                await queue.jobs(status, cursor=cursor)


async def test_a_queue_needs_an_open_app_and_a_name(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    with pytest.raises(UsageError, match="not open"):
        app.queue("mail")
    async with opened(app):
        for name in ("", "a b", "{a}", "x" * 101):
            with pytest.raises(OptionError, match="queue name"):
                app.queue(name)


# Helpers


class Gate:
    def __init__(self) -> None:
        self.started: list[int] = []
        self.let_go = asyncio.Event()


def _gated(app: Headrace) -> tuple[Task[[int], Any, None], Gate]:
    """Register a task that notes its number and waits until it is let go."""
    gate = Gate()

    @app.task
    async def wait(number: int) -> None:
        gate.started.append(number)
        await gate.let_go.wait()

    return wait, gate


async def _one_of_each(app: Headrace, count: int) -> dict[str, list[Job[Any]]]:
    @app.task(attempts=1, keep_result=600)
    async def work(good: bool) -> None:  # noqa: FBT001 - an argument of a job
        if not good:
            raise ValueError

    groups = {
        "completed": await work.enqueue_many([((True,),)] * count),
        "failed": await work.enqueue_many([((False,),)] * count),
    }
    await work_off(app)
    groups["cancelled"] = await work.enqueue_many([((True,),)] * count)
    for job in groups["cancelled"]:
        await job.cancel()
    groups["waiting"] = await work.enqueue_many([((True,),)] * count)
    groups["delayed"] = await work.using(delay=60).enqueue_many([((True,),)] * count)
    return dict(groups.items())


async def _list(queue: Queue, status: str, limit: int) -> list[str]:
    ids: list[str] = []
    cursor: str | None = None
    for _ in range(10_000):
        page = await queue.jobs(status, cursor=cursor, limit=limit)
        ids += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            return ids
    raise AssertionError("the listing does not end")


async def _counts(queue: Queue, **expected: int) -> bool:
    stats = await queue.stats()
    return all(getattr(stats, name) == count for name, count in expected.items())


async def _is_older(queue: Queue, age_ms: int) -> bool:
    return (await queue.stats()).oldest_ms > age_ms


async def _all_told(app: Headrace) -> None:
    """Return once every message that was published before is there: a later answer on the same link has come."""
    await app.control.roundtrip(b"*1\r\n$4\r\nPING\r\n", 1)
