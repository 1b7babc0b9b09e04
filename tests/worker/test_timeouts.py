"""Coroutine tasks in their slots: soft and hard timeouts, cancellation of every kind, what a job leaves to the next."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Never

import pytest

from headrace import Headrace, current_job
from headrace.errors import JobCancelled, JobFailed, JobTimeout
from headrace.worker.slots import CANCEL_MARGIN
from tests.live import DEADLINE, fresh_app, opened, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace import Job
    from headrace.server import PrivateServer

FOREVER = 3600.0
SOON = 0.05


@pytest.fixture
async def app(server: PrivateServer) -> AsyncIterator[Headrace]:
    async with opened(fresh_app(server.url, keep_result=60)) as app:
        yield app


async def failure_of(job: Job[Any]) -> tuple[str, str]:
    """Wait until the job is dead; return class and message of its last failure."""
    with pytest.raises(JobFailed):
        await job.result(timeout=DEADLINE)
    return job.failures[-1].error, job.failures[-1].message


# The soft timeout


async def test_soft_timeout_raises_inside_the_task(app: Headrace) -> None:
    seen: list[BaseException] = []

    @app.task(timeout=SOON, attempts=1)
    async def sleep() -> None:
        try:
            await asyncio.sleep(FOREVER)
        except BaseException as error:
            seen.append(error)
            raise

    async with working(app):
        error, message = await failure_of(await sleep.enqueue())

    assert [isinstance(one, JobTimeout) for one in seen] == [True]
    assert error == "JobTimeout"
    assert "ran past its soft timeout" in message


async def test_a_task_may_clean_up_and_return_after_its_soft_timeout(app: Headrace) -> None:
    @app.task(timeout=SOON, attempts=1)
    async def save_what_is_done() -> str:
        try:
            await asyncio.sleep(FOREVER)
        except JobTimeout:
            await asyncio.sleep(0.001)
        return "half"

    async with working(app):
        job = await save_what_is_done.enqueue()

        assert await job.result(timeout=DEADLINE) == "half"


async def test_cleanup_after_the_soft_timeout_may_use_timeouts_of_its_own(app: Headrace) -> None:
    @app.task(timeout=SOON, attempts=1)
    async def clean_up() -> str:
        try:
            await asyncio.sleep(FOREVER)
        except JobTimeout:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(FOREVER)
            except TimeoutError as error:
                return type(error).__name__
        return "was not told"

    async with working(app):
        job = await clean_up.enqueue()

        assert await job.result(timeout=DEADLINE) == "TimeoutError"


async def test_cleanup_after_the_soft_timeout_may_use_task_groups(app: Headrace) -> None:
    async def divide_by_zero() -> float:
        await asyncio.sleep(0.001)
        return 1 / 0

    @app.task(timeout=SOON, attempts=1)
    async def clean_up() -> int:
        try:
            await asyncio.sleep(FOREVER)
        except JobTimeout:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(divide_by_zero())
                    await asyncio.sleep(FOREVER)
            except* ZeroDivisionError:
                pass
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async with working(app):
        job = await clean_up.enqueue()

        assert await job.result(timeout=DEADLINE) == 0


async def test_soft_timeout_ends_the_children_of_a_task_group(app: Headrace) -> None:
    ended: list[str] = []

    async def child(name: str) -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            ended.append(name)

    @app.task(timeout=SOON, attempts=1)
    async def fan_out() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child("a"))
            group.create_task(child("b"))

    async with working(app):
        error, _ = await failure_of(await fan_out.enqueue())

    assert error == "JobTimeout"
    assert sorted(ended) == ["a", "b"]


async def test_soft_timeout_ends_what_wait_for_waits_for(app: Headrace) -> None:
    ended: list[str] = []

    async def part() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            ended.append("part")

    @app.task(timeout=SOON, attempts=1)
    async def wait() -> None:
        await asyncio.wait_for(part(), FOREVER)

    async with working(app):
        error, _ = await failure_of(await wait.enqueue())

    assert error == "JobTimeout"
    assert ended == ["part"]


async def test_timeout_of_one_call_wins_over_that_of_the_task(app: Headrace) -> None:
    @app.task(timeout=FOREVER, attempts=1)
    async def sleep() -> None:
        await asyncio.sleep(FOREVER)

    async with working(app):
        error, _ = await failure_of(await sleep.using(timeout=SOON).enqueue())

    assert error == "JobTimeout"


async def test_deadline_is_known_from_the_first_step(app: Headrace) -> None:
    deadlines: list[datetime | None] = []

    @app.task(timeout=100.0)
    async def look() -> None:
        deadlines.append(current_job().deadline)
        await asyncio.sleep(0)
        deadlines.append(current_job().deadline)

    async with working(app):
        before = datetime.now(UTC)
        await (await look.enqueue()).result(timeout=DEADLINE)

    for deadline in deadlines:
        assert deadline is not None
        assert timedelta(seconds=99) < deadline - before < timedelta(seconds=101 + DEADLINE)


# The hard limit


async def test_hard_limit_ends_a_task_that_swallows_its_timeout(app: Headrace) -> None:
    swallowed: list[str] = []

    @app.task(timeout=SOON, hard_timeout=2 * SOON, attempts=1)
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(FOREVER)
            except (JobTimeout, asyncio.CancelledError) as error:
                swallowed.append(type(error).__qualname__)

    async with working(app):
        error, message = await failure_of(await stubborn.enqueue())

    assert swallowed == ["JobTimeout"]
    assert error == "JobTimeout"
    assert "was ended" in message


async def test_hard_limit_ends_a_task_that_ignores_even_its_end(app: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

    @app.task(timeout=SOON, hard_timeout=2 * SOON, attempts=1)
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(FOREVER)
            except BaseException as error:  # noqa: BLE001 - that is the fault
                ignored.append(type(error).__qualname__)

    async with working(app) as worker:
        error, _ = await failure_of(await stubborn.enqueue())
        running = worker.stats().running
    gc.collect()

    assert ignored[:2] == ["JobTimeout", "GeneratorExit"]
    assert error == "JobTimeout"
    assert running == 0


async def test_hard_timeout_alone_is_the_only_timeout(app: Headrace) -> None:
    @app.task(hard_timeout=SOON, attempts=1)
    async def sleep() -> None:
        await asyncio.sleep(FOREVER)

    async with working(app):
        error, _ = await failure_of(await sleep.enqueue())

    assert error == "JobTimeout"


async def test_worker_stops_although_a_task_swallows_every_cancellation_and_names_it(
    app: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    entered = asyncio.Event()

    @app.task
    async def stubborn() -> None:
        entered.set()
        while True:
            try:
                await asyncio.sleep(FOREVER)
            except (JobCancelled, asyncio.CancelledError):
                continue

    async with working(app, grace=0.0) as worker:
        job = await stubborn.enqueue()
        await asyncio.wait_for(entered.wait(), DEADLINE)

        began = asyncio.get_running_loop().time()
        worker.stop()
        await asyncio.wait_for(worker.signals.stopped.wait(), DEADLINE)
        took = asyncio.get_running_loop().time() - began

    assert took < CANCEL_MARGIN
    await job.refresh()
    assert job.status == "waiting"
    assert job.attempts == 0
    said = {record.message: vars(record)["jobs"] for record in caplog.records if "jobs" in vars(record)}
    assert said == {
        "jobs did not end within the grace; they are cancelled and handed back": f"{job.task} {job.id}",
        "jobs go on although they are cancelled; they are handed back all the same": f"{job.task} {job.id}",
    }


# What a task may do with its asyncio task


async def test_timeouts_and_task_groups_inside_a_task_work(app: Headrace) -> None:
    @app.task(attempts=1)
    async def both() -> list[Any]:
        seen: list[Any] = []
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(FOREVER)
        except TimeoutError:
            seen.append("timeout")
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(asyncio.sleep(0.001, number)) for number in range(3)]
        seen += [child.result() for child in children]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(FOREVER))
                group.create_task(divide_by_zero())
        except* ZeroDivisionError:
            seen.append("group")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(FOREVER), 0.01)
        return seen

    async def divide_by_zero() -> float:
        await asyncio.sleep(0.001)
        return 1 / 0

    async with working(app):
        job = await both.enqueue()

        assert await job.result(timeout=DEADLINE) == ["timeout", 0, 1, 2, "group"]


async def test_a_task_that_cancels_itself_fails_alone(app: Headrace) -> None:
    @app.task(attempts=1)
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @app.task(attempts=1)
    async def harmless() -> str:
        await asyncio.sleep(0.001)
        return "fine"

    async with working(app, concurrency=1):
        bad = await cancel_itself.enqueue()
        good = await harmless.enqueue()

        assert await good.result(timeout=DEADLINE) == "fine"
        assert (await failure_of(bad))[0] == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("waits_first", [False, True])
async def test_a_cancellation_that_a_task_leaves_behind_does_not_strike_the_next(
    app: Headrace, *, waits_first: bool
) -> None:
    @app.task(attempts=1)
    async def leave_cancelled() -> str:
        if waits_first:
            await asyncio.sleep(0.001)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "returned"

    @app.task(attempts=1)
    async def harmless() -> str:
        async with asyncio.timeout(DEADLINE):
            await asyncio.sleep(0.001)
        return "fine"

    # So many that the worker reserves some ahead, and one job follows another without a wait of the slot.
    jobs = [await task.enqueue() for _ in range(100) for task in (leave_cancelled, harmless)]
    async with working(app, concurrency=1):
        results = [await job.result(timeout=DEADLINE) for job in jobs]

    assert results == ["returned", "fine"] * 100


async def test_a_slot_survives_a_cancellation_that_comes_when_its_job_has_long_ended(app: Headrace) -> None:
    slots: list[asyncio.Task[Any]] = []

    @app.task(attempts=1)
    async def keep() -> int:
        task = asyncio.current_task()
        assert task is not None
        slots.append(task)
        await asyncio.sleep(0.001)
        return len(slots)

    async with working(app, concurrency=1):
        await (await keep.enqueue()).result(timeout=DEADLINE)
        slots[0].cancel()

        assert await (await keep.enqueue()).result(timeout=DEADLINE) == 2

    assert slots[0] is slots[1]


async def test_context_variables_of_a_job_do_not_reach_the_next(app: Headrace) -> None:
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color", default="none")

    @app.task(attempts=1)
    async def paint(name: str) -> list[str]:
        seen = [color.get()]
        color.set(name)
        await asyncio.sleep(0.001)
        seen.append(color.get())
        return seen

    async with working(app, concurrency=1):
        jobs = [await paint.enqueue(name) for name in ("red", "blue")]

        results = [await job.result(timeout=DEADLINE) for job in jobs]

    assert results == [["none", "red"], ["none", "blue"]]
    assert color.get() == "none"


# What a task may raise


class Nasty(BaseException):
    """What some libraries use to get past `except Exception`."""


def leave() -> Never:
    sys.exit(3)


def raise_nasty() -> Never:
    raise Nasty("past every except")


def raise_generator_exit() -> Never:
    raise GeneratorExit


@pytest.mark.parametrize("waits_first", [False, True])
@pytest.mark.parametrize(
    ("throw", "named"),
    [
        (leave, {"SystemExit"}),
        (raise_nasty, {"Nasty"}),
        (raise_generator_exit, {"GeneratorExit", "RuntimeError"}),
    ],
)
async def test_what_is_no_exception_fails_the_job_and_not_the_worker(
    app: Headrace, throw: Any, named: set[str], *, waits_first: bool
) -> None:
    @app.task(attempts=3)
    async def spoil() -> None:
        if waits_first:
            await asyncio.sleep(0.001)
        throw()

    @app.task(attempts=1)
    async def harmless() -> str:
        return "fine"

    async with working(app, concurrency=1):
        bad = await spoil.using(attempts=1).enqueue()
        good = await harmless.enqueue()

        error, _ = await failure_of(bad)
        assert error.rpartition(".")[2] in named
        assert await good.result(timeout=DEADLINE) == "fine"


async def test_sys_exit_is_final_whatever_attempts_are_left(app: Headrace) -> None:
    @app.task(attempts=5)
    async def spoil() -> None:
        await asyncio.sleep(0.001)
        sys.exit("enough")

    async with working(app):
        job = await spoil.enqueue()
        error, message = await failure_of(job)

    assert (error, message) == ("SystemExit", "enough")
    assert job.attempts == 1


def test_ctrl_c_in_a_task_stops_the_program_and_is_recorded(server: PrivateServer) -> None:
    app = fresh_app(server.url)
    jobs: list[Job[None]] = []

    @app.task(attempts=1)
    async def press() -> None:
        await asyncio.sleep(0.001)
        raise KeyboardInterrupt

    async def work() -> None:
        async with app:
            jobs.append(await press.enqueue())
            await app.worker().run()

    async def look() -> str:
        async with app:
            return (await failure_of(jobs[0]))[0]

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())

    assert app.census() == []
    assert asyncio.run(look()) == "KeyboardInterrupt"


# Cancel


async def test_a_cancelled_task_may_clean_up(app: Headrace) -> None:
    entered, cleaned = asyncio.Event(), asyncio.Event()

    @app.task
    async def sleep() -> None:
        entered.set()
        try:
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(0.001)
            cleaned.set()

    async with working(app):
        job = await sleep.enqueue()
        await asyncio.wait_for(entered.wait(), DEADLINE)
        assert await job.cancel()

        with pytest.raises(JobCancelled):
            await job.result(timeout=DEADLINE)

    assert cleaned.is_set()
