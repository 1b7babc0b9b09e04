"""Jobs that run where they are enqueued: options, cancel, pause, and what a queue tells."""

from __future__ import annotations

import asyncio

import pytest

from headrace import Headrace, JobStatus, Priority, current_job
from headrace.errors import JobCancelled, ResultTimeout, UnknownTask
from headrace.testing import inline


async def test_the_options_of_a_call_are_noted_and_kept(app: Headrace) -> None:
    @app.task(name="work", attempts=5)
    async def work() -> None:
        raise OSError

    with inline(app) as ran:
        job = await work.using(delay=3600, priority=Priority.HIGH, queue="bulk", attempts=1, key="k").enqueue()

    (only,) = ran.jobs
    assert (only.delay, only.priority, only.queue, only.key) == (3600.0, 10, "bulk", "k")
    assert (only.status, only.attempts, job.queue) == (JobStatus.FAILED, 1, "bulk")


async def test_delayed_jobs_are_held_on_demand(app: Headrace) -> None:
    seen: list[int] = []

    @app.task(name="note")
    async def note(number: int) -> int:
        seen.append(number)
        if number < 3:
            await note.using(delay=10.0).enqueue(number + 1)
        return number

    with inline(app, hold_delayed=True) as ran:
        job = await note.using(delay=60.0).enqueue(10)
        await note.enqueue(1)

        assert seen == [1]
        assert job.status is JobStatus.DELAYED
        assert (await job.why()).startswith("It is due in ")
        with pytest.raises(ResultTimeout, match="run_delayed"):
            await job.result()
        assert [one.arguments for one in await ran.run_delayed()] == [(2,), (10,)]
        assert seen == [1, 2, 10]
        await ran.run_delayed()
        assert await ran.run_delayed() == []

    assert seen == [1, 2, 10, 3]


async def test_a_key_holds_while_its_job_is_not_finished(app: Headrace) -> None:
    inside: list[str] = []

    @app.task(name="sync")
    async def sync() -> None:
        if not inside:
            inside.append((await sync.using(key="k").enqueue()).id)

    with inline(app) as ran:
        first = await sync.using(key="k").enqueue()
        second = await sync.using(key="k").enqueue()

    assert inside == [first.id]
    assert second.id != first.id
    assert len(ran.jobs) == 2


async def test_a_running_job_is_cancelled(app: Headrace) -> None:
    started = asyncio.Event()

    @app.task(name="long")
    async def long() -> None:
        started.set()
        await asyncio.sleep(30)

    with inline(app) as ran:
        enqueuing = asyncio.create_task(long.enqueue())
        await started.wait()
        (only,) = ran.jobs
        assert await app.queue("default").job(only.id).cancel() is True
        job = await asyncio.wait_for(enqueuing, 5)

        assert job.status is JobStatus.CANCELLED
        with pytest.raises(JobCancelled):
            await job.result()


async def test_a_job_may_cancel_itself(app: Headrace) -> None:
    @app.task(name="stop")
    async def stop() -> None:
        await app.queue("default").job(current_job().id).cancel()
        await asyncio.sleep(30)

    with inline(app):
        assert (await asyncio.wait_for(stop.enqueue(), 5)).status is JobStatus.CANCELLED


async def test_a_cancelled_job_is_put_back_and_run(app: Headrace) -> None:
    @app.task(name="note")
    async def note() -> str:
        return "ran"

    with inline(app, hold_delayed=True):
        job = await note.using(delay=60).enqueue()
        assert await job.cancel() is True
        assert job.status is JobStatus.CANCELLED
        assert await job.retry() is True

        assert await job.result() == "ran"


async def test_cancelling_enqueue_leaves_its_job_waiting(app: Headrace) -> None:
    started = asyncio.Event()

    @app.task(name="long")
    async def long() -> None:
        started.set()
        await asyncio.sleep(30)

    with inline(app) as ran:
        enqueuing = asyncio.create_task(long.enqueue())
        await started.wait()
        enqueuing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await enqueuing

        assert ran.jobs[0].status is JobStatus.WAITING
        assert ran.jobs[0].attempts == 1


async def test_a_paused_queue_keeps_its_jobs_until_it_is_resumed(app: Headrace) -> None:
    @app.task(name="note", queue="mail")
    async def note() -> str:
        return "ran"

    with inline(app):
        queue = app.queue("mail")
        assert await queue.pause() is True
        job = await note.enqueue()
        assert job.status is JobStatus.WAITING
        assert (await queue.stats()).paused is True
        with pytest.raises(ResultTimeout, match="paused"):
            await job.result()

        assert await queue.resume() is True

        assert await job.result() == "ran"


async def test_queues_count_list_and_clear_their_jobs(app: Headrace) -> None:
    @app.task(name="work", queue="mail", attempts=1)
    async def work(number: int) -> int:
        return 1 // number

    with inline(app):
        await work.enqueue_many([((number,),) for number in (1, 2, 0, 0)])
        queue = app.queue("mail")
        stats = await queue.stats()
        page = await queue.jobs("completed", limit=1)
        rest = await queue.jobs("completed", limit=1, cursor=page.cursor)

        assert (stats.completed, stats.failed, stats.waiting, stats.active) == (2, 2, 0, 0)
        assert stats.error_rate == 0.5
        assert [len(page.jobs), len(rest.jobs), rest.cursor] == [1, 1, None]
        assert [queue.name for queue in await app.queues()] == ["mail"]
        assert await queue.clear("failed") == 2
        assert (await queue.stats()).failed == 0
        await queue.drain(timeout=1.0)


async def test_a_running_job_is_waited_for_by_others(app: Headrace) -> None:
    started, leave = asyncio.Event(), asyncio.Event()

    @app.task(name="long")
    async def long() -> str:
        await current_job().log("begun")
        started.set()
        await leave.wait()
        return "done"

    with inline(app) as ran:
        enqueuing = asyncio.create_task(long.enqueue())
        await started.wait()
        handle = app.queue("default").job(ran.jobs[0].id)
        with pytest.raises(ResultTimeout, match=r"did not end within 0\.01 s"):
            await handle.result(timeout=0.01)
        assert (await handle.refresh()).status is JobStatus.ACTIVE
        assert await handle.log_lines() == ["begun"]
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        leave.set()

        assert await waiting == "done"
        await enqueuing


async def test_jobs_that_wait_say_why(app: Headrace) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    with inline(app):
        await app.queue("default").pause()
        first, second = await note.enqueue(), await note.using(priority=20).enqueue()

        assert "paused" in await first.why()
        assert "paused" in await second.why()
        assert (await app.queue("default").stats()).waiting == 2


async def test_a_job_whose_task_is_unknown_is_kept_for_others(app: Headrace) -> None:
    other = Headrace("unix:///nonexistent/other.sock")

    @other.task(name="elsewhere")
    async def elsewhere() -> None: ...

    @app.task(name="first")
    async def first() -> str:
        return current_job().follow(elsewhere)

    with inline(app) as ran:
        await first.enqueue()

        assert [job.status for job in ran.jobs] == [JobStatus.COMPLETED, JobStatus.DELAYED]
        assert isinstance(ran.jobs[1].error, UnknownTask)
