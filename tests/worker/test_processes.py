"""Tasks in child processes: what goes in and comes out, in how many of them, and which no child could run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace
from headrace.errors import JobCancelled, OptionError
from headrace.worker.processes import Processes, _Turn
from tests.live import DEADLINE, fresh_app, opened, until, working
from tests.worker import process_tasks
from tests.worker.children import add, children, door, failure_of, no_child_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from headrace.server import PrivateServer


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    with no_child_left():
        yield


@pytest.fixture
async def app(server: PrivateServer) -> AsyncIterator[Headrace]:
    async with opened(fresh_app(server.url, keep_result=60, processes=1)) as app:
        yield app


# What goes in and comes out


async def test_arguments_and_results_keep_their_types(app: Headrace) -> None:
    shift = add(app, process_tasks.shift)
    order = process_tasks.Order(1, datetime(2026, 11, 24, tzinfo=UTC))

    async with working(app):
        plain = await (await shift.enqueue(order)).result(timeout=DEADLINE)
        named = await (await shift.enqueue(order=order, days=3)).result(timeout=DEADLINE)

    assert plain == process_tasks.Order(1, datetime(2026, 11, 25, tzinfo=UTC))
    assert named == process_tasks.Order(1, datetime(2026, 11, 27, tzinfo=UTC))


async def test_nothing_is_pickled_since_nothing_could(app: Headrace) -> None:
    has_loaded_pickle = add(app, process_tasks.has_loaded_pickle)

    async with working(app):
        assert await (await has_loaded_pickle.enqueue()).result(timeout=DEADLINE) is False


async def test_one_child_runs_one_job_after_another(app: Headrace) -> None:
    pid = add(app, process_tasks.pid)

    async with working(app):
        assert children(app) == []
        jobs = await pid.enqueue_many([((),)] * 5)
        pids = {await job.result(timeout=DEADLINE) for job in jobs}
        entered = children(app)

    assert pids == set(entered)
    assert len(entered) == 1
    assert os.getpid() not in pids


async def test_a_task_without_a_result_completes(app: Headrace) -> None:
    nothing = add(app, process_tasks.nothing, keep_result=0)

    async with working(app) as worker:
        job = await nothing.enqueue()

        assert await job.result(timeout=DEADLINE) is None
        assert worker.stats().completed == 1


async def test_middlewares_see_the_result_in_its_type(app: Headrace) -> None:
    shift = add(app, process_tasks.shift)
    seen: list[object] = []

    class Look:
        async def after(self, job: object, result: object) -> None:
            del job
            seen.append(result)

    app.middleware(Look())
    order = process_tasks.Order(1, datetime(2026, 11, 24, tzinfo=UTC))

    async with working(app):
        result = await (await shift.enqueue(order)).result(timeout=DEADLINE)

    assert seen == [result]


async def test_current_job_says_in_the_child_what_it_says_elsewhere(app: Headrace) -> None:
    describe = add(app, process_tasks.describe_job, name="describe", queue="facts", timeout=60.0)

    async with working(app):
        before = datetime.now(UTC).timestamp()
        job = await describe.enqueue()
        said = await job.result(timeout=DEADLINE)
        after = datetime.now(UTC).timestamp()

    deadline = said.pop("deadline").timestamp()
    assert before + 60 < deadline < after + 60
    assert said.pop("fence") > 0
    assert said == {"id": job.id, "task": "describe", "queue": "facts", "attempt": 1}


async def test_progress_and_log_lines_travel_through_the_worker(app: Headrace) -> None:
    report = add(app, process_tasks.report)

    async with working(app):
        job = await report.enqueue()
        assert await job.result(timeout=DEADLINE) == "done"
        lines = await job.log_lines()

    assert lines == ["one line", "from a thread"]


async def test_progress_is_seen_while_the_job_runs(app: Headrace) -> None:
    slow = add(app, process_tasks.report_and_visit)

    async with door() as (inside, port), working(app):
        job = await slow.enqueue(port)
        await inside.next()
        await job.refresh()
        inside.let_go()
        await job.result(timeout=DEADLINE)

    assert job.progress == (25.0, "at the door")


async def test_the_wrong_form_of_progress_is_refused(app: Headrace) -> None:
    wrong = add(app, process_tasks.refuse_wrong_progress)

    async with working(app):
        said = await (await wrong.enqueue()).result(timeout=DEADLINE)

    assert ["_sync" in one for one in said] == [True, True, False]
    assert "0 to 100" in said[2]


async def test_a_job_enqueued_to_follow_runs_after_the_child_has_returned(app: Headrace) -> None:
    first = add(app, process_tasks.follow)
    ran = asyncio.Event()

    @app.task(name="follower")
    async def follower(number: int) -> None:
        assert number == 5
        ran.set()

    async with working(app):
        job = await first.enqueue("follower", 5)
        assert await job.result(timeout=DEADLINE)
        await asyncio.wait_for(ran.wait(), DEADLINE)


async def test_a_result_that_is_too_large_or_no_value_fails_the_job(server: PrivateServer) -> None:
    async with opened(fresh_app(server.url, keep_result=60, processes=1, record_limit_bytes=10_000)) as app:
        large, strange = add(app, process_tasks.be_large), add(app, process_tasks.be_strange)

        async with working(app):
            assert len(await (await large.enqueue(9_000)).result(timeout=DEADLINE)) == 9_000
            too_large = await failure_of(await large.enqueue(11_000))
            no_value = await failure_of(await strange.enqueue())

    assert too_large[0] == "RecordTooLarge"
    assert "HEADRACE_RECORD_LIMIT_BYTES" in too_large[1]
    assert no_value[0] == "EncodingError"


# What a function raises


async def test_failures_keep_class_message_and_traceback_of_the_child(app: Headrace) -> None:
    refuse, divide = add(app, process_tasks.refuse), add(app, process_tasks.divide)

    async with working(app):
        job = await refuse.enqueue()
        assert await failure_of(job) == ("tests.worker.process_tasks.Refused", "code 7")
        assert await failure_of(await divide.enqueue()) == ("ZeroDivisionError", "division by zero")

    lines = job.failures[-1].traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in refuse")
    assert 'raise Refused(7, why="no")' in lines[2]


@pytest.mark.parametrize(
    ("listed", "attempts"),
    [((process_tasks.Refused,), 3), ((Exception,), 3), ((OSError,), 1), ((ValueError, KeyError), 1)],
)
async def test_retry_on_sees_the_class_that_was_raised(
    app: Headrace, listed: tuple[type[Exception], ...], attempts: int
) -> None:
    refuse = add(app, process_tasks.refuse, attempts=3, backoff=Fixed(0.0), retry_on=listed)

    async with working(app):
        job = await refuse.enqueue()
        await failure_of(job)

    assert job.attempts == attempts


@pytest.mark.parametrize(("base", "attempts"), [("OSError", 3), ("Exception", 1)])
async def test_retry_on_sees_the_bases_of_a_class_that_only_the_child_knows(
    app: Headrace, base: str, attempts: int
) -> None:
    unknown = add(app, process_tasks.raise_unknown, attempts=3, backoff=Fixed(0.0), retry_on=(OSError,))

    async with working(app):
        job = await unknown.enqueue(base)
        error, message = await failure_of(job)

    assert error.endswith("LocalError")
    assert message == "only here"
    assert job.attempts == attempts


async def test_a_child_may_ask_for_another_attempt(app: Headrace) -> None:
    again = add(app, process_tasks.ask_again, attempts=2, retry_on=KeyError)

    async with working(app):
        job = await again.enqueue()

        assert await job.result(timeout=DEADLINE) is None

    await job.refresh()
    assert job.attempts == 2


async def test_what_is_no_exception_fails_the_job_and_leaves_the_child(app: Headrace) -> None:
    leave = add(app, process_tasks.leave, attempts=5)
    nasty = add(app, process_tasks.raise_nasty)
    pid = add(app, process_tasks.pid)

    async with working(app):
        first = await (await pid.enqueue()).result(timeout=DEADLINE)
        left = await leave.enqueue()
        assert await failure_of(left) == ("SystemExit", "enough")
        assert (await failure_of(await nasty.enqueue()))[0] == "tests.worker.process_tasks.Nasty"
        last = await (await pid.enqueue()).result(timeout=DEADLINE)

    assert left.attempts == 1
    assert first == last


# The pool


async def test_no_more_children_run_than_the_setting_allows_and_jobs_take_turns(server: PrivateServer) -> None:
    async with opened(fresh_app(server.url, keep_result=60, processes=2)) as app:
        visit = add(app, process_tasks.visit)

        async with door() as (inside, port), working(app, concurrency=6) as worker:
            jobs = await visit.enqueue_many([((port,),)] * 6)
            first = {(await inside.next())[0], (await inside.next())[0]}

            async def probe() -> bool:
                return worker.stats().running == 6

            await until(probe, "all jobs have a slot")
            assert inside.visits.empty()
            assert set(children(app)) == first
            for _ in range(2):
                inside.let_go()
                assert {(await inside.next())[0], (await inside.next())[0]} == first
            inside.let_go()
            pids = {await job.result(timeout=DEADLINE) for job in jobs}

    assert pids == first


@pytest.mark.parametrize("ends", ["cancelled", "stopped"])
async def test_a_turn_that_ends_when_a_child_comes_free_passes_it_on(app: Headrace, ends: str) -> None:
    task = add(app, process_tasks.pid)
    pool = Processes(app.census_book, app, maximum=1)
    pool.prepare(task)
    attempt: Any = SimpleNamespace(task=task.name)
    turns = [_Turn() for _ in range(3)]
    child = await pool._acquire(turns[0], attempt)
    waits = [asyncio.create_task(pool._acquire(turn, attempt)) for turn in turns[1:]]
    await asyncio.sleep(0)

    pool._release(child)
    if ends == "cancelled":
        waits[0].cancel()
    else:
        turns[1].stop(JobCancelled)

    assert await asyncio.wait_for(waits[1], DEADLINE) is child
    with pytest.raises((asyncio.CancelledError, JobCancelled)):
        await waits[0]
    await pool.close()


async def test_signals_of_a_stopping_group_do_nothing_in_a_child_and_the_usual_in_what_it_starts(app: Headrace) -> None:
    signals, pid = add(app, process_tasks.signals), add(app, process_tasks.pid)

    async with working(app):
        ended_by = await (await signals.enqueue()).result(timeout=DEADLINE)

        assert ended_by == [-signal.SIGTERM, -signal.SIGTERM]
        assert children(app) == [await (await pid.enqueue()).result(timeout=DEADLINE)]


async def test_a_child_that_cannot_be_started_fails_the_job_with_the_reason(
    app: Headrace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    pid = add(app, process_tasks.pid)

    async with working(app):
        error, message = await failure_of(await pid.enqueue())

    assert error == "ProcessDied"
    assert "could be started" in message
    assert "job process cannot be started" in caplog.text


# Tasks that no child could find


async def test_a_worker_refuses_a_task_that_no_child_could_find(app: Headrace) -> None:
    def inner() -> None:
        pass

    add(app, inner)

    with pytest.raises(OptionError, match="at the top level of a module"):
        await app.worker().run()


async def test_a_worker_refuses_a_task_whose_name_means_something_else(app: Headrace) -> None:
    def inner() -> None:
        pass

    inner.__qualname__ = "pid"
    inner.__module__ = process_tasks.__name__
    add(app, inner)

    with pytest.raises(OptionError, match=r"is not what 'tests\.worker\.process_tasks\.pid' names"):
        await app.worker().run()
