"""Jobs that run where synchronous code enqueues them."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from headrace import Headrace, JobStatus, current_job
from headrace.errors import (
    JobTimeout,
)
from headrace.testing import inline


def test_enqueue_sync_runs_the_job_without_a_loop(app: Headrace) -> None:
    threads: list[threading.Thread] = []

    @app.task(name="plain")
    def plain(number: int) -> int:
        threads.append(threading.current_thread())
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return asyncio.run(asyncio.sleep(0, number))

    @app.task(name="coroutine")
    async def coroutine(number: int) -> int:
        await asyncio.sleep(0)
        return number

    with inline(app) as ran:
        assert plain.enqueue_sync(1).status is JobStatus.COMPLETED
        assert coroutine.enqueue_sync(2).status is JobStatus.COMPLETED

    assert threads == [threading.main_thread()]
    assert [job.result for job in ran.jobs] == [1, 2]


def test_a_plain_job_in_the_callers_thread_may_fail_retry_and_enqueue(app: Headrace) -> None:
    order: list[str] = []

    @app.task(name="inner")
    def inner() -> None:
        order.append("inner")

    @app.task(name="outer", attempts=2)
    def outer() -> None:
        order.append(f"outer {current_job().attempt}")
        inner.enqueue_sync()
        if current_job().attempt == 1:
            raise StopIteration("odd, but an error like any other")

    with inline(app) as ran:
        assert outer.enqueue_sync().status is JobStatus.COMPLETED

    assert order == ["outer 1", "inner", "outer 2", "inner"]
    assert [len(job.retry_delays) for job in ran.ran(outer)] == [1]


def test_a_plain_job_past_its_timeout_fails_when_it_returns(app: Headrace) -> None:
    @app.task(name="slow", attempts=1, timeout=0.01)
    def slow() -> None:
        time.sleep(0.05)

    with inline(app, raise_errors=True), pytest.raises(JobTimeout):
        slow.enqueue_sync()


async def test_enqueue_sync_on_the_loop_has_run_the_job_when_it_returns(app: Headrace) -> None:
    @app.task(name="coroutine")
    async def coroutine(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @app.task(name="outer")
    async def outer() -> int:
        return await coroutine.enqueue_sync(5).result()

    with inline(app) as ran:
        job = coroutine.enqueue_sync(4)

        assert job.status is JobStatus.COMPLETED
        assert await job.result() == 4
        assert await (await outer.enqueue()).result() == 5
    assert [job.task for job in ran.jobs] == ["coroutine", "outer", "coroutine"]


async def test_a_plain_job_in_a_thread_enqueues_onto_the_loop_it_came_from(app: Headrace) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @app.task(name="inner")
    async def inner() -> str:
        loops.append(asyncio.get_running_loop())
        return "inner"

    @app.task(name="outer")
    def outer() -> str:
        return inner.enqueue_sync().id

    with inline(app) as ran:
        assert await (await outer.enqueue()).result() == ran.jobs[1].id

    assert loops == [asyncio.get_running_loop()]


def test_threads_enqueue_at_the_same_time(app: Headrace) -> None:
    @app.task(name="note")
    async def note(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    with inline(app) as ran:
        threads = [threading.Thread(target=note.enqueue_sync, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

    assert sorted(job.result for job in ran.jobs) == list(range(8))


def test_closing_the_synchronous_side_keeps_jobs_inline(app: Headrace) -> None:
    @app.task(name="note")
    def note() -> None: ...

    with inline(app) as ran:
        note.enqueue_sync()
        app.close_sync()
        note.enqueue_sync()

    assert len(ran.jobs) == 2
