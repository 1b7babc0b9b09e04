"""Jobs that run where they are enqueued: what a caller sees of them, their attempts, and the block itself."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import doctest
import time
from decimal import Decimal
from typing import Any

import pytest

from headrace import Fixed, Headrace, JobStatus, Linear, Retry, current_job
from headrace.errors import (
    ArgumentError,
    JobFailed,
    JobTimeout,
    RecordCorrupt,
    UsageError,
)
from headrace.testing import inline, inline_app


@dataclasses.dataclass
class Order:
    number: int
    price: Decimal
    at: dt.datetime


def test_the_example_in_the_docstring_holds() -> None:
    result = doctest.testmod(inline_app)

    assert result.attempted > 0
    assert result.failed == 0


async def test_a_job_has_run_when_enqueue_returns(app: Headrace) -> None:
    done: list[str] = []

    @app.task(name="greet", queue="talk")
    async def greet(name: str) -> str:
        done.append(name)
        return f"Hello, {name}"

    with inline(app) as ran:
        job = await greet.enqueue("Ann")

    assert done == ["Ann"]
    assert job.status is JobStatus.COMPLETED
    (only,) = ran.jobs
    assert (only.task, only.queue, only.arguments, only.keywords) == ("greet", "talk", ("Ann",), {})
    assert (only.status, only.result, only.attempts, only.error) == (JobStatus.COMPLETED, "Hello, Ann", 1, None)


async def test_the_handle_of_a_job_works(app: Headrace) -> None:
    @app.task(name="double")
    async def double(number: int) -> int:
        await current_job().progress(50, "half")
        return 2 * number

    with inline(app):
        job = await double.enqueue(21)

        assert await job.result(timeout=1.0) == 42
        assert (await job.refresh()).attempts == 1
        assert (await job.why()).startswith("It completed")
        assert await job.cancel() is False
        assert await job.retry() is False


async def test_the_app_counts_as_open_and_may_be_opened_inside(app: Headrace) -> None:
    @app.task(name="noop")
    async def noop() -> None: ...

    with inline(app) as ran:
        await noop.enqueue()
        async with app, app:
            await noop.enqueue()
        await noop.enqueue()

    assert len(ran.jobs) == 3
    with pytest.raises(UsageError, match="not open"):
        await noop.enqueue()


async def test_many_jobs_run_in_their_order(app: Headrace) -> None:
    seen: list[int] = []

    @app.task(name="note")
    async def note(number: int, *, twice: bool = False) -> int:
        await asyncio.sleep(0)
        seen.append(number)
        return number * (1 + twice)

    with inline(app):
        jobs = await note.enqueue_many([((number,), {"twice": number % 2 == 0}) for number in range(20)])

        assert [await job.result() for job in jobs] == [number * (1 + (number % 2 == 0)) for number in range(20)]
    assert seen == list(range(20))


async def test_arguments_and_results_take_the_way_through_the_codec(app: Headrace) -> None:
    given = Order(1, Decimal("9.90"), dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
    seen: list[Any] = []

    @app.task(name="place")
    async def place(order: Order, tags: tuple[str, ...]) -> Order:
        seen.append((order, tags))
        return order

    with inline(app) as ran:
        job = await place.enqueue(given, ("a", "b"))
        result = await job.result()

    assert seen == [(given, ("a", "b"))]
    assert seen[0][0] is not given
    assert result == given
    assert result is not given
    assert ran.jobs[0].arguments == (given, ("a", "b"))


async def test_a_wrong_argument_is_refused_before_anything_runs(app: Headrace) -> None:
    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    with inline(app) as ran:
        with pytest.raises(ArgumentError, match="argument 'number'"):
            await double.enqueue("many")  # type: ignore[arg-type]  # the mistake under test
        with pytest.raises(ArgumentError, match="missing a required argument"):
            await double.enqueue()  # type: ignore[call-arg]  # the mistake under test

    assert ran.jobs == []


async def test_a_result_that_does_not_fit_its_annotation_is_found(app: Headrace) -> None:
    @app.task(name="lie")
    async def lie() -> int:
        return "no number"  # type: ignore[return-value]  # the mistake under test

    with inline(app):
        job = await lie.enqueue()

        with pytest.raises(RecordCorrupt, match="result of task 'lie'"):
            await job.result()


async def test_a_result_that_cannot_be_written_fails_the_job(app: Headrace) -> None:
    @app.task(name="thing", attempts=1)
    async def thing() -> object:
        return object()

    with inline(app):
        job = await thing.enqueue()

        with pytest.raises(JobFailed, match="EncodingError"):
            await job.result()


async def test_nobody_waits_for_the_next_attempt_but_the_waits_are_noted(app: Headrace) -> None:
    tries: list[int] = []

    @app.task(name="flaky", attempts=4, backoff=Linear(base=100.0))
    async def flaky() -> int:
        tries.append(current_job().attempt)
        if len(tries) < 3:
            raise OSError("away")
        return len(tries)

    began = time.monotonic()
    with inline(app) as ran:
        job = await flaky.enqueue()
        assert await job.result() == 3
        await job.refresh()

    assert tries == [1, 2, 3]
    assert ran.jobs[0].retry_delays == [100.0, 200.0]
    assert job.attempts == 3
    assert time.monotonic() - began < 5


async def test_a_dead_job_tells_what_its_attempts_raised(app: Headrace) -> None:
    @app.task(name="hopeless", attempts=2, backoff=Fixed(1.0))
    async def hopeless() -> None:
        raise ValueError("no use")

    with inline(app) as ran:
        job = await hopeless.enqueue()

        assert job.status is JobStatus.FAILED
        with pytest.raises(JobFailed, match="dead after 2 attempts: ValueError: no use"):
            await job.result()
        assert [failure.attempt for failure in job.failures] == [1, 2]
    assert isinstance(ran.jobs[0].error, ValueError)


async def test_a_dead_job_raises_out_of_enqueue_on_demand(app: Headrace) -> None:
    @app.task(name="hopeless", attempts=1)
    async def hopeless() -> None:
        raise ValueError("no use")

    @app.task(name="outer")
    async def outer() -> None:
        await hopeless.enqueue()

    with inline(app, raise_errors=True), pytest.raises(ValueError, match="no use"):
        await outer.enqueue()


async def test_a_task_asks_for_another_attempt_itself(app: Headrace) -> None:
    @app.task(name="later", attempts=2)
    async def later() -> str:
        if current_job().attempt == 1:
            raise Retry(after=30.0)
        return "done"

    with inline(app) as ran:
        assert await (await later.enqueue()).result() == "done"

    assert ran.jobs[0].retry_delays == [30.0]


async def test_waits_count_towards_the_age_of_a_job(app: Headrace) -> None:
    @app.task(name="old", attempts=10, backoff=Fixed(40.0), max_age=100.0)
    async def old() -> None:
        raise OSError

    with inline(app) as ran:
        await old.enqueue()

    assert ran.jobs[0].retry_delays == [40.0, 40.0]
    assert ran.jobs[0].status is JobStatus.FAILED


async def test_a_dead_letter_queue_takes_a_dead_job_and_gives_it_back(app: Headrace) -> None:
    broken = True

    @app.task(name="mend", queue="mail", attempts=1, dead_letter="mail-dead")
    async def mend() -> str:
        if broken:
            raise OSError
        return "sent"

    with inline(app):
        job = await mend.enqueue()
        assert (await app.queue("mail-dead").stats()).failed == 1
        assert (await app.queue("mail").stats()).failed == 0

        broken = False
        assert await app.queue("mail").retry_failed() == 1

        assert await job.result() == "sent"
        assert (await app.queue("mail-dead").stats()).failed == 0


async def test_a_soft_timeout_reaches_a_coroutine(app: Headrace) -> None:
    @app.task(name="slow", attempts=1, timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        except JobTimeout:
            await current_job().log("told")
            raise

    with inline(app) as ran:
        job = await slow.enqueue()

        with pytest.raises(JobFailed, match="JobTimeout"):
            await job.result()
    assert ran.jobs[0].log == ["told"]


async def test_a_worker_is_refused(app: Headrace) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    async with inline(app):
        with pytest.raises(UsageError, match="no worker to start"):
            await app.worker().run()


async def test_two_blocks_on_one_app_are_refused(app: Headrace) -> None:
    with inline(app), pytest.raises(UsageError, match="inline already"), inline(app):
        pass


async def test_an_app_left_open_inside_is_named(app: Headrace) -> None:
    with pytest.raises(UsageError, match="is open still"), inline(app):
        await app.__aenter__()

    assert app._opened == 0


async def test_an_error_inside_is_not_hidden(app: Headrace) -> None:
    async def fail() -> None:
        await app.__aenter__()
        raise ValueError("of the test")

    with pytest.raises(ValueError, match="of the test"), inline(app):
        await fail()


async def test_subscriptions_made_inside_are_closed_and_older_ones_stay(app: Headrace) -> None:
    older = app.subscribe("job.*", lambda _: None)

    with inline(app):
        newer = app.subscribe("job.*", lambda _: None)

    assert newer.closed
    assert not older.closed
    older.close()


def test_ran_takes_tasks_only(app: Headrace) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    with inline(app) as ran:
        note.enqueue_sync()

        assert len(ran.ran(note)) == len(ran.ran(note.using(delay=1.0))) == 1
        with pytest.raises(ArgumentError, match="expected a task"):
            ran.ran("note")  # type: ignore[arg-type]  # the mistake under test


async def test_health_without_a_server_is_good(app: Headrace) -> None:
    async with inline(app):
        health = await app.health()

    assert (health.status, health.reasons) == ("healthy", ())
