"""What becomes of a job's end: its result, its notes, its unique key, and how much of it is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace, JobStatus, current_job
from headrace.errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout, UnknownTask
from tests.live import (
    DEADLINE,
    Gate,
    exists,
    is_waited_for,
    lose,
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


# Results


async def test_result_of_a_job_that_completes_during_the_wait(app: Headrace) -> None:
    gate = Gate()

    @app.task
    async def double(number: int) -> int:
        await gate.pass_through()
        return 2 * number

    async with working(app):
        job = await double.enqueue(21)
        waiting = asyncio.create_task(job.result(DEADLINE))
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        gate.open.set()

        result = await waiting

    assert result == 42
    assert job.status is JobStatus.COMPLETED


async def test_result_of_a_job_that_completed_before_the_wait(app: Headrace) -> None:
    @app.task
    async def double(number: int) -> int:
        return 2 * number

    job = await double.enqueue(21)
    await work_off(app)

    result = await job.result(DEADLINE)

    assert result == 42


async def test_a_result_comes_in_the_annotated_type_to_an_app_that_knows_the_task(app: Headrace) -> None:
    def tags(text: str) -> set[str]:
        return set(text.split())

    job = await app.task(name="tags")(tags).enqueue("a b a")
    other = sibling(app)
    other.task(name="tags")(tags)
    await work_off(app)

    async with opened(other):
        result = await other.queue("default").job(job.id).result(DEADLINE)

    assert result == {"a", "b"}


async def test_a_result_of_a_task_that_the_app_does_not_know_is_refused_with_its_name(app: Headrace) -> None:
    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    job = await double.enqueue(21)
    await work_off(app)

    async with opened(sibling(app)) as other:
        with pytest.raises(UnknownTask, match=f"job {job.id} is of task 'double'.*Import the module"):
            await other.queue("default").job(job.id).result(DEADLINE)


async def test_result_of_a_dead_job_says_what_its_attempts_raised(app: Headrace) -> None:
    @app.task(attempts=2, backoff=Fixed(0.0))
    async def fail(text: str) -> None:
        raise ValueError(f"{text} {current_job().attempt}")

    job = await fail.enqueue("no")
    await work_off(app)

    with pytest.raises(JobFailed, match=rf"job {job.id} .* is dead after 2 attempts: ValueError: no 2"):
        await job.result(DEADLINE)
    assert [failure.message for failure in job.failures] == ["no 1", "no 2"]
    assert "raise ValueError" in job.failures[0].traceback
    assert job.status is JobStatus.FAILED


async def test_result_of_a_job_that_dies_in_another_queue_during_the_wait(app: Headrace) -> None:
    @app.task(queue="mail", attempts=1, dead_letter="mail-dead")
    async def fail() -> None:
        raise ValueError("no")

    job = await fail.enqueue()
    async with working(app):
        with pytest.raises(JobFailed, match="ValueError: no"):
            await job.result(DEADLINE)


async def test_result_of_a_cancelled_job_says_so(app: Headrace) -> None:
    @app.task
    async def idle() -> None: ...

    job = await idle.enqueue()
    waiting = asyncio.create_task(job.result(DEADLINE))
    await job.cancel()

    with pytest.raises(JobCancelled, match=f"job {job.id} .* was cancelled"):
        await waiting
    with pytest.raises(JobCancelled):
        await job.result(DEADLINE)


async def test_a_wait_that_runs_out_leaves_the_job_alone(app: Headrace) -> None:
    @app.task(keep_result=60)
    async def answer() -> int:
        return 42

    job = await answer.enqueue()
    with pytest.raises(ResultTimeout, match=rf"job {job.id} on queue 'default' did not end within 0.05 s"):
        await job.result(0.05)
    await work_off(app)

    assert await job.result(DEADLINE) == 42


async def test_result_of_a_job_that_never_was(app: Headrace) -> None:
    with pytest.raises(JobNotFound, match="job nope is not in queue 'default'"):
        await app.queue("default").job("nope").result(DEADLINE)


async def test_a_result_that_is_not_kept_reaches_who_waits_and_nobody_later(app: Headrace) -> None:
    @app.task(keep_result=0)
    async def answer() -> int:
        return 42

    job = await answer.enqueue()
    waiting = asyncio.create_task(job.result(DEADLINE))
    await until(lambda: is_waited_for(app, job), "the wait is entered")
    async with working(app):
        result = await waiting

    assert result == 42
    with pytest.raises(JobNotFound, match="Set keep_result="):
        await job.result(DEADLINE)


async def test_a_job_without_a_result_ends_the_wait_too(app: Headrace) -> None:
    @app.task(keep_result=0)
    async def nothing() -> None: ...

    job = await nothing.enqueue()
    waiting = asyncio.create_task(job.result(DEADLINE))
    await until(lambda: is_waited_for(app, job), "the wait is entered")
    async with working(app):
        await waiting

    assert job.status is JobStatus.COMPLETED


async def test_a_result_is_gone_once_its_time_is_over(app: Headrace) -> None:
    @app.task(keep_result=0.03)
    async def answer() -> int:
        return 42

    job = await answer.enqueue()
    await work_off(app)

    # No other job of the queue completes that could sweep the outcome away.
    await until(lambda: gone(job), "the outcome expires")
    with pytest.raises(JobNotFound):
        await job.result(DEADLINE)
    assert (await app.queue("default").jobs("completed")).jobs == []
    # Red when: find.lua and watch.lua answer with outcomes that have expired.


async def test_only_so_many_outcomes_are_kept_however_fast_jobs_complete(make_app: Callable[..., Headrace]) -> None:
    async with make_app(keep_finished_count=20) as app:

        @app.task(keep_result=600)
        async def echo(number: int) -> int:
            return number

        jobs = await echo.enqueue_many([((number,),) for number in range(3_000)])
        await work_off(app, concurrency=100)

        assert len((await app.queue("default").jobs("completed", limit=1000)).jobs) == 20
        assert await jobs[-1].result(DEADLINE) == 2_999
    # Red when: trim drops at most 100 a call while a call settles 1,000.


async def test_only_so_many_dead_and_cancelled_jobs_are_kept(make_app: Callable[..., Headrace]) -> None:
    async with make_app(keep_dead_count=20, keep_finished_count=10) as app:

        @app.task(attempts=1)
        async def fail() -> None:
            await current_job().progress(1)
            raise ValueError

        queue = app.queue("default")
        await fail.enqueue_many([((),)] * 400)
        for job in (await queue.jobs("waiting", limit=100)).jobs:
            await job.cancel()
        cancelled = (await queue.stats()).cancelled
        await work_off(app, concurrency=100)

        stats = await queue.stats()
        assert (cancelled, stats.failed, stats.cancelled) == (10, 20, 10)
        sizes = {name: await size_of(app, name) for name in ("jobs", "state", "errors", "progress")}
        assert sizes == {"jobs": 30, "state": 20, "errors": 20, "progress": 20}


# Notes


async def test_progress_and_log_lines_are_seen_from_another_app(app: Headrace) -> None:
    gate = Gate()

    @app.task
    async def work() -> None:
        job = current_job()
        await job.progress(40, "half of it")
        for number in range(250):
            await job.log(f"line {number}")
        await gate.pass_through()

    async with working(app), opened(sibling(app)) as other:
        job = await work.enqueue()
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        seen = other.queue("default").job(job.id)
        await seen.refresh()
        lines = await seen.log_lines()
        gate.open.set()
        await job.result(DEADLINE)

    assert seen.progress == (40.0, "half of it")
    assert lines == [f"line {number}" for number in range(50, 250)]
    assert seen.status is JobStatus.ACTIVE


# Unique keys


async def test_a_key_names_one_unfinished_job(app: Headrace) -> None:
    @app.task
    async def work(number: int) -> int:
        return number

    keyed = work.using(key="mail:42")
    first, second = await keyed.enqueue(1), await keyed.enqueue(2)
    await work_off(app)
    third = await keyed.enqueue(3)

    assert first.id == second.id != third.id
    assert await second.result(DEADLINE) == 1


async def test_a_key_is_free_again_when_its_job_died(app: Headrace) -> None:
    @app.task(attempts=1)
    async def fail() -> None:
        raise ValueError

    keyed = fail.using(key="k")
    first = await keyed.enqueue()
    await work_off(app)

    assert (await keyed.enqueue()).id != first.id


@pytest.mark.parametrize("delay", [0.0, 60.0])
async def test_a_key_is_free_again_when_its_job_was_cancelled(app: Headrace, delay: float) -> None:
    @app.task
    async def idle() -> None: ...

    keyed = idle.using(key="k", delay=delay)
    first = await keyed.enqueue()
    await first.cancel()

    assert (await keyed.enqueue()).id != first.id


async def test_a_key_is_free_again_when_its_running_job_was_cancelled_or_cleared(app: Headrace) -> None:
    gate = Gate()
    keyed = app.task(gate.pass_through).using(key="k")
    first = await keyed.enqueue()
    async with working(app):
        await asyncio.wait_for(gate.entered.wait(), DEADLINE)
        await first.cancel()
        with pytest.raises(JobCancelled):
            await first.result(DEADLINE)
    second = await keyed.enqueue()
    await app.queue("default").clear("waiting")
    third = await keyed.enqueue()

    assert len({first.id, second.id, third.id}) == 3


async def test_a_key_is_free_again_when_its_job_died_with_its_workers(app: Headrace) -> None:
    @app.task
    async def idle() -> None: ...

    keyed = idle.using(key="k")
    first = await keyed.enqueue()
    await lose(app, max_stalled=0)

    assert (await first.refresh()).status is JobStatus.FAILED
    assert (await keyed.enqueue()).id != first.id
    # Red when: enqueue.lua takes a dead holder for an unfinished one.


# Helpers


async def gone(job: Job[Any]) -> bool:
    return not await exists(job)
