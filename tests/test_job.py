"""Handles of jobs on a real server with real workers: cancel, retry, and why a job is where it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace, JobStatus, current_job
from headrace.errors import JobCancelled, JobNotFound
from tests.live import (
    DEADLINE,
    Gate,
    exists,
    hold_replies,
    opened,
    sibling,
    size_of,
    until,
    work_off,
    working,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Job


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app() as app:
        yield app


# Cancel


@pytest.mark.parametrize("delay", [0.0, 60.0])
async def test_a_cancelled_job_that_waits_or_is_delayed_never_runs(app: Headrace, delay: float) -> None:
    ran: list[int] = []

    @app.task
    async def note(number: int) -> None:
        ran.append(number)

    cancelled, _ = await note.using(delay=delay).enqueue(1), await note.enqueue(2)

    assert await cancelled.cancel()
    await work_off(app)

    assert ran == [2]
    assert (await cancelled.refresh()).status is JobStatus.CANCELLED


async def test_a_running_job_is_cancelled_from_another_app(app: Headrace) -> None:
    gate, raised = Gate(), []

    @app.task
    async def work() -> None:
        try:
            await gate.pass_through()
        except BaseException as error:
            raised.append(type(error))
            raise

    async with working(app), opened(sibling(app)) as other:
        job = await work.enqueue()
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)

        assert await other.queue("default").job(job.id).cancel()

        with pytest.raises(JobCancelled):
            await job.result(DEADLINE)
    assert len(raised) == 1
    assert (await app.queue("default").stats()).cancelled == 1


async def test_a_held_job_that_was_not_started_is_cancelled_and_never_runs(
    app: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.worker.flights.plan_prefetch", lambda *_: 4)
    gate = Gate()
    task = app.task(gate.pass_through)
    first, held = await task.enqueue("first"), await task.enqueue("held")

    async with working(app, concurrency=1), opened(sibling(app)) as other:
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        await until(lambda: _has_status(held, JobStatus.ACTIVE), "the second job is held")
        assert await other.queue("default").job(held.id).cancel()
        with pytest.raises(JobCancelled):
            await held.result(DEADLINE)
        gate.open.set()
        await first.result(DEADLINE)

    assert gate.runs == ["first"]


async def test_a_cancel_that_overtakes_the_reply_of_the_reserve_still_strikes(app: Headrace) -> None:
    gate = Gate()
    task = app.task(gate.pass_through)
    async with working(app) as worker:
        arrived, let_go = hold_replies(worker)
        job = await task.enqueue("late")
        await asyncio.wait_for(arrived.wait(), DEADLINE)

        assert await job.cancel()
        # The message is there once a later one on the same link was answered.
        await app.control.roundtrip(b"*1\r\n$4\r\nPING\r\n", 1)
        let_go.set()

        with pytest.raises(JobCancelled):
            await job.result(DEADLINE)
    assert gate.runs in ([], ["late"])
    # Red when: the worker forgets a cancel of a job that it does not know yet.


async def test_cancel_says_no_to_a_job_that_has_ended(app: Headrace) -> None:
    @app.task(queue="mail", keep_result=60, attempts=1, dead_letter="mail-dead")
    async def work(good: bool) -> None:  # noqa: FBT001 - an argument of a job
        if not good:
            raise ValueError

    completed, died, cancelled = [await work.enqueue(good) for good in (True, False, True)]
    await cancelled.cancel()
    seen_early = [await job.refresh() for job in (completed, died)]
    await work_off(app)

    for job in (completed, died, cancelled, *seen_early):
        assert not await job.cancel()
    with pytest.raises(JobNotFound):
        await app.queue("mail").job("nope").cancel()


async def test_a_cancel_survives_the_stop_of_its_worker(app: Headrace) -> None:
    gate = Gate()

    @app.task
    async def stubborn() -> None:
        while not gate.open.is_set():
            try:
                await gate.pass_through()
            except asyncio.CancelledError:
                gate.runs.append("told")

    job = await stubborn.enqueue()
    async with working(app, grace=0.0) as worker:
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        # Held back from the worker: only the server knows of it when the job is handed back.
        worker._parts._host.unlisten(worker._parts._told)  # type: ignore[union-attr]  # it runs
        assert await job.cancel()

    assert (await job.refresh()).status is JobStatus.CANCELLED
    # Red when: settle.lua forgets a cancel with a job that is handed back.


# Retry


async def test_a_retried_dead_job_has_all_its_attempts_and_leaves_nothing_behind(app: Headrace) -> None:
    attempts: list[int] = []

    @app.task(attempts=2, backoff=Fixed(0.0), keep_result=0)
    async def fail_twice() -> None:
        attempts.append(current_job().attempt)
        await current_job().progress(50)
        if len(attempts) <= 2:
            raise ValueError

    job = await fail_twice.enqueue()
    await work_off(app)
    assert await job.retry()
    assert job.status is JobStatus.WAITING
    assert not await job.retry()
    await work_off(app)

    assert attempts == [1, 2, 1]
    assert not await exists(job)
    assert {name: await size_of(app, name) for name in ("jobs", "state", "errors", "progress")} == {
        "jobs": 0, "state": 0, "errors": 0, "progress": 0,
    }  # fmt: skip


async def test_a_retried_job_keeps_what_its_first_attempts_raised(app: Headrace) -> None:
    @app.task(queue="mail", attempts=1, dead_letter="mail-dead")
    async def fail() -> None:
        raise ValueError("no")

    job = await fail.enqueue()
    await work_off(app)
    await job.retry()
    before = (await job.refresh()).failures
    await work_off(app)
    after = (await job.refresh()).failures

    assert [len(before), len(after)] == [1, 2]


@pytest.mark.parametrize("delay", [0.0, 60.0])
async def test_a_cancelled_job_that_is_retried_runs_exactly_once(app: Headrace, delay: float) -> None:
    ran: list[int] = []

    @app.task
    async def note(number: int) -> None:
        ran.append(number)

    job = await note.using(delay=delay).enqueue(1)
    for _ in range(3):
        assert await job.cancel()
        assert await job.retry()
    stats = await app.queue("default").stats()
    await work_off(app)

    assert ran == [1]
    assert (stats.waiting, stats.cancelled) == (1, 0)
    assert await size_of(app, "ghosts") == 0


async def test_retry_says_no_to_a_job_that_is_neither_dead_nor_cancelled(app: Headrace) -> None:
    gate = Gate()
    task = app.task(keep_result=60)(gate.pass_through)
    async with working(app, concurrency=1):
        active = await task.enqueue()
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        waiting, delayed = await task.enqueue(), await task.using(delay=60).enqueue()

        answers = [await job.retry() for job in (active, waiting, delayed)]
        gate.open.set()
        await asyncio.gather(active.result(DEADLINE), waiting.result(DEADLINE))

    assert answers == [False] * 3
    assert not await active.retry()
    assert len(gate.runs) == 2


@pytest.mark.parametrize("handle", ["its own", "the dead-letter queue's"])
async def test_a_dead_letter_goes_back_to_the_queue_it_came_from(app: Headrace, handle: str) -> None:
    tries: list[str] = []

    @app.task(queue="mail", attempts=1, dead_letter="mail-dead", keep_result=60)
    async def flaky() -> int:
        tries.append(current_job().queue)
        if len(tries) == 1:
            raise ValueError
        return 42

    job: Job[Any] = await flaky.enqueue()
    await work_off(app)
    # An app without the task does not know which dead-letter queue belongs to which queue.
    async with opened(sibling(app)) as other:
        seen = job if handle == "its own" else other.queue("mail-dead").job(job.id)
        assert await seen.retry()
        assert seen.queue == "mail"
    await work_off(app)

    assert tries == ["mail", "mail"]
    assert await job.result(DEADLINE) == 42
    assert (await app.queue("mail-dead").stats()).failed == 0
    # Red when: Job.retry puts a dead letter into the list of its dead-letter queue.


# Helpers


async def _has_status(job: Job[Any], status: JobStatus) -> bool:
    return (await job.refresh()).status is status
