"""Hooks around jobs and resources of lifespans, with a real worker on a real server."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace, JobStatus, Retry, current_job, resource
from headrace.errors import ArgumentError, JobCancelled, JobFailed, OptionError
from headrace.middleware import MAX_HOOKS, Hooks
from tests.live import DEADLINE, opened, until, work_off, working

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from headrace.context import CurrentJob


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with opened(make_app()) as app:
        yield app


class Layer:
    """A middleware that notes its calls, and raises where it is told to."""

    def __init__(self, name: str, seen: list[str], *, fails: str = "") -> None:
        self.name = name
        self.seen = seen
        self.fails = fails

    async def before(self, job: CurrentJob) -> None:
        self._note(f"before {job.attempt}", "before")

    async def after(self, job: CurrentJob, result: object) -> None:
        await asyncio.sleep(0)
        self._note(f"after {job.attempt} {result}", "after")

    async def error(self, job: CurrentJob, error: Exception) -> None:
        await asyncio.sleep(0)
        self._note(f"error {job.attempt} {type(error).__name__}", "error")

    def _note(self, text: str, method: str) -> None:
        self.seen.append(f"{self.name}: {text}")
        if method == self.fails:
            raise LookupError(f"{self.name} {method}")


# Order


async def test_hooks_lie_around_a_job_like_the_layers_of_an_onion(app: Headrace) -> None:
    seen: list[str] = []
    app.middleware(Layer("outer", seen))
    app.middleware(Layer("inner", seen))

    @app.task(name="work")
    async def work() -> int:
        seen.append("work")
        return 7

    await work.enqueue()
    await work_off(app)

    assert seen == ["outer: before 1", "inner: before 1", "work", "inner: after 1 7", "outer: after 1 7"]


async def test_hooks_surround_each_attempt(app: Headrace) -> None:
    seen: list[str] = []
    app.middleware(Layer("outer", seen))
    app.middleware(Layer("inner", seen))

    @app.task(name="flaky", attempts=2, backoff=Fixed(0.0))
    async def flaky() -> str:
        if current_job().attempt == 1:
            raise OSError
        return "ok"

    async with working(app):
        await (await flaky.enqueue()).result(DEADLINE)

    assert seen == [
        *("outer: before 1", "inner: before 1", "inner: error 1 OSError", "outer: error 1 OSError"),
        *("outer: before 2", "inner: before 2", "inner: after 2 ok", "outer: after 2 ok"),
    ]


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_hooks_may_be_plain_or_coroutine_functions_and_may_be_left_out(app: Headrace, kind: str) -> None:
    seen: list[Any] = []

    class Plain:
        def before(self, job: CurrentJob) -> None:
            seen.append(job.task)

    class Coroutine:
        async def after(self, job: CurrentJob, result: object) -> None:
            await asyncio.sleep(0)
            seen.append((job.queue, result))

    app.middleware(Plain())
    app.middleware(Coroutine())

    @app.task(name="coroutine")
    async def coroutine() -> str:
        return "c"

    @app.task(name="plain")
    def plain() -> str:
        return "p"

    tasks: dict[str, Any] = {"coroutine": coroutine, "plain": plain}
    await tasks[kind].enqueue()
    await work_off(app)

    assert seen == [kind, ("default", kind[0])]


async def test_a_class_is_added_as_a_middleware_by_a_decorator(app: Headrace) -> None:
    seen: list[str] = []

    @app.middleware
    class Notes:
        @staticmethod
        def before(job: CurrentJob) -> None:
            seen.append(job.id)

    @app.task(name="work")
    async def work() -> None: ...

    job = await work.enqueue()
    await work_off(app)

    assert seen == [job.id]
    assert isinstance(Notes, type)


async def test_the_current_job_is_known_inside_hooks(app: Headrace) -> None:
    seen: list[str] = []

    class Look:
        async def before(self, job: CurrentJob) -> None:
            assert current_job() is job
            await job.progress(1, "from a hook")
            seen.append(job.id)

    app.middleware(Look())

    @app.task(name="work")
    async def work() -> None:
        seen.append(current_job().id)

    job = await work.enqueue()
    await work_off(app)

    assert seen == [job.id, job.id]


# Errors in hooks


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        ("before", ["outer: before 1", "inner: before 1", "outer: error 1 LookupError"]),
        (
            "after",
            ["outer: before 1", "inner: before 1", "work", "inner: after 1 7", "outer: error 1 LookupError"],
        ),
    ],
)
async def test_an_error_in_a_hook_fails_the_attempt_and_reaches_the_hooks_around_it(
    app: Headrace, fails: str, expected: list[str]
) -> None:
    seen: list[str] = []
    app.middleware(Layer("outer", seen))
    app.middleware(Layer("inner", seen, fails=fails))

    @app.task(name="work", attempts=1)
    async def work() -> int:
        seen.append("work")
        return 7

    async with working(app):
        job = await work.enqueue()
        with pytest.raises(JobFailed, match=f"LookupError: inner {fails}"):
            await job.result(DEADLINE)

    assert seen == expected


async def test_an_error_in_a_before_hook_uses_attempts_as_one_of_the_task_does(app: Headrace) -> None:
    seen: list[str] = []
    app.middleware(Layer("only", seen, fails="before"))

    @app.task(name="work", attempts=3, backoff=Fixed(0.0))
    async def work() -> None:
        seen.append("work")

    async with working(app):
        job = await work.enqueue()
        with pytest.raises(JobFailed):
            await job.result(DEADLINE)

    assert seen == ["only: before 1", "only: before 2", "only: before 3"]
    assert [failure.error for failure in job.failures] == ["LookupError"] * 3


async def test_an_error_in_an_error_hook_does_not_hide_why_the_job_failed(
    app: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    app.middleware(Layer("outer", seen))
    app.middleware(Layer("broken", seen, fails="error"))

    @app.task(name="work", attempts=2)
    async def work() -> None:
        if current_job().attempt == 1:
            raise Retry(after=0.0)
        raise ValueError("the reason")

    async with working(app):
        job = await work.enqueue()
        with pytest.raises(JobFailed, match="ValueError: the reason"):
            await job.result(DEADLINE)

    assert seen[-2:] == ["broken: error 2 ValueError", "outer: error 2 ValueError"]
    assert "The error hook of Layer raised as well: LookupError('broken error')" in job.failures[-1].traceback
    assert [record.message for record in caplog.records].count("error hook failed") == 2


async def test_a_cancelled_attempt_reaches_the_error_hooks(app: Headrace) -> None:
    seen: list[str] = []
    entered = asyncio.Event()
    app.middleware(Layer("only", seen))

    @app.task(name="long")
    async def long() -> None:
        entered.set()
        await asyncio.sleep(60)

    async with working(app):
        job = await long.enqueue()
        await asyncio.wait_for(entered.wait(), DEADLINE)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(DEADLINE)

    assert seen == ["only: before 1", "only: error 1 JobCancelled"]
    assert job.status is JobStatus.CANCELLED


async def test_a_task_that_never_began_is_not_reported_as_never_awaited(
    app: Headrace, recwarn: pytest.WarningsRecorder
) -> None:
    app.middleware(Layer("only", [], fails="before"))

    @app.task(name="work", attempts=1)
    async def work() -> None: ...

    await work.enqueue()
    await work_off(app)

    assert [str(warning.message) for warning in recwarn] == []


# Wrong hooks


@pytest.mark.parametrize("wrong", [object(), None, "before", print])
def test_something_without_hooks_is_refused(wrong: object) -> None:
    app = Headrace("redis://127.0.0.1:1/0")

    with pytest.raises(OptionError, match="expected an object with a method before, after or error"):
        app.middleware(wrong)


def test_hooks_added_without_end_are_refused() -> None:
    async def lifespan() -> AsyncGenerator[dict[str, Any], None]:
        yield {}

    hooks = Hooks()
    for _ in range(MAX_HOOKS):
        hooks.add_middleware(Layer("same", []))
        hooks.add_lifespan(lifespan)

    with pytest.raises(OptionError, match="Add each one once"):
        hooks.add_middleware(Layer("same", []))
    with pytest.raises(OptionError, match="Add each one once"):
        hooks.add_lifespan(lifespan)


# Lifespans


async def test_lifespans_start_in_order_with_a_worker_and_end_with_it_in_reverse(app: Headrace) -> None:
    seen: list[str] = []

    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        seen.append("database up")
        yield {"db": "the database"}
        seen.append("database down")

    @app.lifespan
    async def cache() -> AsyncGenerator[dict[str, Any], None]:
        seen.append("cache up")
        yield {"cache": "the cache", "other": 1}
        seen.append("cache down")

    @app.task(name="work")
    async def work(text: str, *, db: str = resource(), store: str = resource("cache")) -> None:
        seen.append(f"{text} {db} {store}")

    await work.enqueue("with")
    assert seen == []
    await work_off(app)

    assert seen == ["database up", "cache up", "with the database the cache", "cache down", "database down"]


async def test_every_worker_has_resources_of_its_own(app: Headrace) -> None:
    made: list[object] = []

    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        made.append(object())
        yield {"db": made[-1]}

    @app.task(name="work")
    async def work(db: object = resource()) -> bool:
        return db is made[-1]

    for _ in range(2):
        job = await work.enqueue()
        await work_off(app)
        assert await job.result(DEADLINE)

    assert len(made) == 2


async def test_a_plain_task_gets_its_resources_in_its_thread(app: Headrace) -> None:
    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        yield {"db": "the database"}

    @app.task(name="work")
    def work(number: int, db: str = resource()) -> list[Any]:
        return [number, db, threading.current_thread() is threading.main_thread()]

    async with working(app):
        assert await (await work.enqueue(1)).result(DEADLINE) == [1, "the database", False]


async def test_a_resource_is_no_argument_of_a_job_but_one_of_a_direct_call(app: Headrace) -> None:
    @app.task(name="work")
    async def work(number: int, db: str = resource()) -> str:
        return f"{number} {db}"

    with pytest.raises(ArgumentError, match="unexpected keyword argument 'db'"):
        await work.enqueue(1, db="mine")
    with pytest.raises(ArgumentError, match="too many positional arguments"):
        await work.enqueue(1, "mine")
    assert await work(1, db="mine") == "1 mine"


async def test_a_missing_resource_is_named_when_a_worker_starts(app: Headrace) -> None:
    seen: list[str] = []

    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        seen.append("up")
        yield {"db": None}
        seen.append("down")

    @app.task(name="work")
    async def work(database: str = resource("database"), db: str = resource()) -> None: ...

    with pytest.raises(OptionError, match=r"task 'work' takes the resources \['database'\].*with @app\.lifespan"):
        await app.worker().run()

    assert seen == ["up", "down"]


@pytest.mark.parametrize(
    ("yielded", "complaint"), [(None, "yielded NoneType: expected a dict"), ({"db": 2}, r"yields \['db'\] again")]
)
async def test_a_lifespan_that_yields_something_wrong_is_named_and_shut_down(
    app: Headrace, yielded: Any, complaint: str
) -> None:
    seen: list[str] = []

    @app.lifespan
    async def first() -> AsyncGenerator[dict[str, Any], None]:
        yield {"db": 1}
        seen.append("first down")

    @app.lifespan
    async def second() -> AsyncGenerator[dict[str, Any], None]:
        yield yielded
        seen.append("second down")

    with pytest.raises(OptionError, match=complaint):
        await app.worker().run()

    assert seen == ["second down", "first down"]


async def test_a_lifespan_that_cannot_start_stops_the_worker_and_ends_the_others(app: Headrace) -> None:
    seen: list[str] = []

    @app.lifespan
    async def first() -> AsyncGenerator[dict[str, Any], None]:
        yield {}
        seen.append("first down")

    @app.lifespan
    async def second() -> AsyncGenerator[dict[str, Any], None]:
        raise ConnectionRefusedError("no database")
        yield {}  # type: ignore[unreachable]  # makes it a generator

    with pytest.raises(ConnectionRefusedError, match="no database"):
        await app.worker().run()

    assert seen == ["first down"]


async def test_a_lifespan_that_fails_while_it_ends_is_reported_when_all_jobs_are_settled(app: Headrace) -> None:
    seen: list[str] = []

    @app.lifespan
    async def first() -> AsyncGenerator[dict[str, Any], None]:
        yield {}
        seen.append("first down")

    @app.lifespan
    async def second() -> AsyncGenerator[dict[str, Any], None]:
        yield {}
        raise BrokenPipeError("went away")

    @app.task(name="work")
    async def work() -> str:
        return "done"

    job = await work.enqueue()
    with pytest.raises(BrokenPipeError, match="went away"):
        await work_off(app)

    assert seen == ["first down"]
    assert await job.result(DEADLINE) == "done"


@pytest.mark.parametrize("times", [0, 2])
async def test_a_lifespan_yields_exactly_once(app: Headrace, times: int) -> None:
    @app.lifespan
    async def odd() -> AsyncGenerator[dict[str, Any], None]:
        for _ in range(times):
            yield {}

    with pytest.raises(OptionError, match="yielded NoneType" if not times else "more than once"):
        await work_off(app)


async def test_a_lifespan_is_shut_down_when_its_worker_is_cancelled(app: Headrace) -> None:
    seen: list[str] = []

    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        yield {}
        await asyncio.sleep(0)
        seen.append("down")

    worker = app.worker(["default"])
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.signals.started.wait(), DEADLINE)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert seen == ["down"]


async def test_a_lifespan_ends_after_the_jobs_that_use_it(app: Headrace) -> None:
    seen: list[str] = []
    entered = asyncio.Event()

    @app.lifespan
    async def database() -> AsyncGenerator[dict[str, Any], None]:
        yield {"db": 1}
        seen.append("down")

    @app.task(name="slow")
    async def slow(db: int = resource()) -> None:
        entered.set()
        await asyncio.sleep(0.1)
        seen.append(f"used {db}")

    async with working(app) as worker:
        job = await slow.enqueue()
        await asyncio.wait_for(entered.wait(), DEADLINE)
        worker.stop()
        await until(_is_completed(job), "the job completed")

    assert seen == ["used 1", "down"]


@pytest.mark.parametrize("wrong", [None, dict])
def test_something_that_is_no_lifespan_is_refused(wrong: Any) -> None:
    app = Headrace("redis://127.0.0.1:1/0")

    with pytest.raises(OptionError, match="expected `async def` with one `yield` of a dict of resources"):
        app.lifespan(wrong)


def _is_completed(job: Any) -> Any:
    async def look() -> bool:
        return (await job.refresh()).status is JobStatus.COMPLETED

    return look
