"""Jobs that run where they are enqueued: what a task sees, and jobs of jobs."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace, JobStatus, current_job, resource
from headrace.errors import (
    OptionError,
    UsageError,
)
from headrace.testing import inline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def test_a_task_knows_and_notes_its_job(app: Headrace) -> None:
    seen: dict[str, Any] = {}

    @app.task(name="look", queue="q", timeout=60.0)
    async def look() -> None:
        job = current_job()
        seen.update(id=job.id, task=job.task, queue=job.queue, attempt=job.attempt, fence=job.fence)
        await asyncio.sleep(0)
        seen.update(deadline=job.deadline)
        await job.progress(10)
        await job.progress(90, "nearly")
        await job.log("a line")

    with inline(app) as ran:
        job = await look.enqueue()

    assert seen["id"] == job.id
    assert (seen["task"], seen["queue"], seen["attempt"]) == ("look", "q", 1)
    assert seen["fence"] > 0
    assert seen["deadline"] > dt.datetime.now(dt.UTC)
    assert ran.jobs[0].progress == [(10.0, ""), (90.0, "nearly")]
    assert ran.jobs[0].log == ["a line"]


async def test_progress_out_of_range_is_refused(app: Headrace) -> None:
    @app.task(name="far", attempts=1)
    async def far() -> None:
        await current_job().progress(101)

    with inline(app, raise_errors=True), pytest.raises(OptionError, match="from 0 to 100"):
        await far.enqueue()


async def test_a_plain_function_runs_in_a_thread_with_its_job(app: Headrace) -> None:
    seen: list[Any] = []

    @app.task(name="plain")
    def plain(number: int) -> int:
        current_job().progress_sync(50)
        current_job().log_sync("in a thread")
        seen.append(threading.current_thread())
        return asyncio.run(asyncio.sleep(0, number))

    with inline(app) as ran:
        assert await (await plain.enqueue(7)).result() == 7

    assert seen[0] is not threading.current_thread()
    assert not seen[0].is_alive()
    assert (ran.jobs[0].progress, ran.jobs[0].log) == ([(50.0, "")], ["in a thread"])


async def test_a_task_for_a_child_process_runs_in_this_one(app: Headrace) -> None:
    @app.task(name="heavy", process=True)
    def heavy(number: int, *, plus: int = 0) -> tuple[int, int]:
        return number + plus, os.getpid()

    with inline(app):
        assert await (await heavy.enqueue(1, plus=2)).result() == (3, os.getpid())


async def test_context_variables_of_the_caller_stay_with_the_caller(app: Headrace) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    @app.task(name="read")
    async def read() -> str:
        before = variable.get()
        variable.set("changed by the job")
        return before

    with inline(app):
        variable.set("of the caller")
        assert await (await read.enqueue()).result() == "unset"

    assert variable.get() == "of the caller"


async def test_middleware_surrounds_each_attempt(app: Headrace) -> None:
    seen: list[str] = []

    @app.middleware
    class Notes:
        @staticmethod
        async def before(job: Any) -> None:
            seen.append(f"before {job.attempt}")

        @staticmethod
        def after(_job: Any, result: object) -> None:
            seen.append(f"after {result}")

        @staticmethod
        async def error(job: Any, error: Exception) -> None:
            seen.append(f"error {job.attempt} {error}")

    @app.task(name="flaky", attempts=2)
    async def flaky() -> str:
        if current_job().attempt == 1:
            raise OSError("away")
        return "ok"

    with inline(app):
        await flaky.enqueue()

    assert seen == ["before 1", "error 1 away", "before 2", "after ok"]


async def test_lifespans_run_around_each_call_of_enqueue(app: Headrace) -> None:
    seen: list[str] = []

    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        seen.append("open")
        yield {"db": f"database {len(seen)}"}
        seen.append("close")

    @app.task(name="inner")
    async def inner(db: str = resource()) -> str:
        return db

    @app.task(name="outer")
    async def outer(store: str = resource("db")) -> list[str]:
        return [store, await (await inner.enqueue()).result()]

    with inline(app):
        assert await (await outer.enqueue()).result() == ["database 1", "database 1"]
        assert seen == ["open", "close"]
        assert await (await inner.enqueue()).result() == "database 3"

    assert seen == ["open", "close"] * 2


async def test_stand_ins_replace_the_resources_of_lifespans(app: Headrace) -> None:
    started: list[str] = []

    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        started.append("no lifespan runs")
        yield {"db": None}

    @app.task(name="ask")
    async def ask(db: str = resource()) -> str:
        return db

    with inline(app, resources={"db": "a fake"}):
        assert await (await ask.enqueue()).result() == "a fake"

    assert started == []


async def test_a_missing_resource_is_named_and_the_job_is_kept(app: Headrace) -> None:
    @app.task(name="ask")
    async def ask(db: str = resource()) -> str:
        return db

    with inline(app) as ran:
        with pytest.raises(OptionError, match=r"task 'ask' takes the resources \['db'\].*@app.lifespan"):
            await ask.enqueue()

        assert ran.jobs[0].status is JobStatus.WAITING


async def test_events_have_been_handed_over_when_enqueue_returns(app: Headrace) -> None:
    seen: list[tuple[str, str]] = []

    async def take(event: Any) -> None:
        await asyncio.sleep(0)
        seen.append((event.name, event.fields["task"]))

    @app.task(name="flaky", attempts=2)
    async def flaky() -> None:
        if current_job().attempt == 1:
            raise OSError

    @app.task(name="dead", attempts=1)
    async def dead() -> None:
        raise OSError

    with inline(app):
        app.subscribe("job.*", take)
        await flaky.enqueue()
        await dead.enqueue()

        assert seen == [("job.retried", "flaky"), ("job.completed", "flaky"), ("job.failed", "dead")]


async def test_a_job_enqueued_by_a_job_runs_inside_it(app: Headrace) -> None:
    order: list[str] = []

    @app.task(name="inner")
    async def inner() -> str:
        order.append("inner")
        return "from inside"

    @app.task(name="outer")
    async def outer() -> str:
        order.append("outer begins")
        job = await inner.enqueue()
        order.append("outer ends")
        return await job.result()

    with inline(app) as ran:
        assert await (await outer.enqueue()).result() == "from inside"

    assert order == ["outer begins", "inner", "outer ends"]
    assert [job.task for job in ran.jobs] == ["outer", "inner"]
    assert [job.id for job in ran.ran(inner)] == [ran.jobs[1].id]


async def test_jobs_follow_only_a_job_that_completes(app: Headrace) -> None:
    seen: list[str] = []

    @app.task(name="next")
    async def following(text: str) -> None:
        seen.append(text)

    @app.task(name="first", attempts=2)
    async def first() -> None:
        current_job().follow(following, f"after attempt {current_job().attempt}")
        current_job().follow(following.using(delay=60.0), "later")
        if current_job().attempt == 1:
            raise OSError

    with inline(app) as ran:
        await first.enqueue()

    assert seen == ["after attempt 2", "later"]
    assert [job.delay for job in ran.ran(following)] == [0.0, 60.0]


async def test_jobs_that_enqueue_each_other_without_end_are_stopped(app: Headrace) -> None:
    @app.task(name="again", attempts=1)
    async def again() -> None:
        await again.enqueue()

    with inline(app, raise_errors=True) as ran, pytest.raises(UsageError, match="run inside each other"):
        await again.enqueue()

    assert 10 < len(ran.jobs) < 1000


async def test_jobs_of_a_queue_in_many_tasks_at_once_stay_apart(app: Headrace) -> None:
    @app.task(name="slow")
    async def slow(number: int) -> int:
        await asyncio.sleep(0.01)
        return number

    with inline(app):
        jobs = await asyncio.gather(*(slow.enqueue(number) for number in range(20)))

        assert [await job.result() for job in jobs] == list(range(20))
