"""Plain functions in threads: bounded, with the job at hand, told to stop, given up, and never in each other's way."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace, current_job
from headrace.census import Census
from headrace.errors import JobCancelled, JobFailed, JobTimeout, UsageError
from headrace.worker.threads import Threads
from tests.live import DEADLINE, fresh_app, opened, until, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Job
    from headrace.server import PrivateServer
    from headrace.worker.worker import Worker

SOON = 0.05


@pytest.fixture
async def app(server: PrivateServer) -> AsyncIterator[Headrace]:
    async with opened(fresh_app(server.url, keep_result=60)) as app:
        yield app


@pytest.fixture
async def narrow(server: PrivateServer) -> AsyncIterator[Headrace]:
    """An app whose workers have a single thread."""
    async with opened(fresh_app(server.url, keep_result=60, threads=1)) as app:
        yield app


class Gate:
    """Holds threads inside a C call until it is opened, and tells the loop how many have come."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.inside = asyncio.Semaphore(0)
        self.event = threading.Event()
        self.lock = threading.Lock()
        self.now = 0
        self.most = 0

    def pass_through(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.loop.call_soon_threadsafe(self.inside.release)
        assert self.event.wait(DEADLINE)
        with self.lock:
            self.now -= 1

    async def wait_for(self, count: int) -> None:
        for _ in range(count):
            await asyncio.wait_for(self.inside.acquire(), DEADLINE)


async def failure_of(job: Job[Any]) -> tuple[str, str]:
    """Wait until the job is dead; return class and message of its last failure."""
    with pytest.raises(JobFailed):
        await job.result(timeout=DEADLINE)
    return job.failures[-1].error, job.failures[-1].message


async def all_running(worker: Worker, count: int) -> None:
    """Wait until so many slots have a job, whether or not a thread has taken it."""

    async def probe() -> bool:
        return worker.stats().running == count

    await until(probe, f"{count} slots have a job")


def spin() -> None:
    """Run Python code until told to stop."""
    while True:
        pass


# Running


async def test_plain_function_runs_in_a_thread_of_the_worker(app: Headrace) -> None:
    @app.task
    def where(number: int) -> tuple[int, str, int]:
        return number + 1, threading.current_thread().name, threading.get_ident()

    async with working(app) as worker:
        job = await where.enqueue(1)
        number, name, ident = await job.result(timeout=DEADLINE)
        rows = [row.name for row in app.census() if row.kind == "thread"]

    assert number == 2
    assert name.startswith(f"headrace-{worker.id}-")
    assert ident != threading.get_ident()
    assert name in rows


async def test_no_more_threads_run_than_the_setting_allows(server: PrivateServer) -> None:
    async with opened(fresh_app(server.url, threads=2)) as app:
        gate = Gate()

        @app.task(keep_result=60)
        def enter() -> None:
            gate.pass_through()

        async with working(app, concurrency=6) as worker:
            jobs = await enter.enqueue_many([((),)] * 6)
            await gate.wait_for(2)
            await all_running(worker, 6)
            gate.event.set()
            for job in jobs:
                await job.result(timeout=DEADLINE)

        assert gate.most == 2


async def test_a_function_sees_its_own_job_and_context_and_leaves_none_behind(narrow: Headrace) -> None:
    color: contextvars.ContextVar[str] = contextvars.ContextVar("color", default="none")

    @narrow.task
    def paint(name: str) -> tuple[str, str, int, str]:
        before = color.get()
        color.set(name)
        job = current_job()
        return before, job.id, job.attempt, threading.current_thread().name

    async with working(narrow):
        jobs = [await paint.enqueue(name) for name in ("red", "blue")]
        results = [await job.result(timeout=DEADLINE) for job in jobs]

    assert [result[:3] for result in results] == [("none", job.id, 1) for job in jobs]
    assert results[0][3] == results[1][3]


async def test_progress_and_log_lines_reach_the_server_from_the_first_instruction(app: Headrace) -> None:
    gate = Gate()

    @app.task
    def report() -> None:
        current_job().progress_sync(40, "almost")
        current_job().log_sync("one line")
        gate.pass_through()

    async with working(app):
        job = await report.enqueue()
        await gate.wait_for(1)
        await job.refresh()
        gate.event.set()
        await job.result(timeout=DEADLINE)

    assert job.progress == (40.0, "almost")


async def test_the_wrong_form_of_progress_is_refused_at_once(app: Headrace) -> None:
    @app.task(attempts=1)
    async def blocks() -> None:
        current_job().progress_sync(40)

    @app.task(attempts=1)
    def awaits() -> None:
        asyncio.run(current_job().progress(40))

    async with working(app):
        for task in (blocks, awaits):
            error, message = await failure_of(await task.enqueue())

            assert error == UsageError.__name__
            assert "Use " in message


# What a function may raise


class Nasty(BaseException):
    """What some libraries use to get past `except Exception`."""


def throw(error: BaseException) -> Callable[[], None]:
    def thrower() -> None:
        raise error

    return thrower


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (ValueError("no"), "ValueError"),
        (StopIteration("early"), "RuntimeError"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "JobError"),
        (GeneratorExit(), "RuntimeError"),
        (asyncio.CancelledError(), "CancelledError"),
        (Nasty("past every except"), "Nasty"),
    ],
)
async def test_whatever_a_function_raises_fails_its_job_alone(
    narrow: Headrace, raised: BaseException, named: str
) -> None:
    spoil = narrow.task(name="spoil", attempts=1)(throw(raised))

    @narrow.task
    def harmless() -> str:
        return threading.current_thread().name

    async with working(narrow):
        first = await (await harmless.enqueue()).result(timeout=DEADLINE)
        error, _ = await failure_of(await spoil.enqueue())
        last = await (await harmless.enqueue()).result(timeout=DEADLINE)

    assert error.rpartition(".")[2] == named
    assert first == last


# Being told to stop


async def test_soft_timeout_raises_in_the_thread(app: Headrace) -> None:
    @app.task(timeout=SOON, attempts=1)
    def busy() -> None:
        spin()

    async with working(app):
        job = await busy.enqueue()
        error, message = await failure_of(job)

    assert error == "JobTimeout"
    assert "busy" in message
    assert "in spin" in job.failures[-1].traceback


async def test_a_function_may_clean_up_and_return_after_its_soft_timeout(app: Headrace) -> None:
    @app.task(timeout=SOON, attempts=1)
    def busy() -> str:
        try:
            spin()
        except JobTimeout:
            return "half"
        return "whole"

    async with working(app):
        job = await busy.enqueue()

        assert await job.result(timeout=DEADLINE) == "half"


async def test_cancel_raises_in_the_thread(app: Headrace) -> None:
    gate = Gate()
    seen: list[str] = []

    @app.task
    def busy() -> None:
        gate.loop.call_soon_threadsafe(gate.inside.release)
        try:
            spin()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    async with working(app):
        job = await busy.enqueue()
        await gate.wait_for(1)
        assert await job.cancel()

        with pytest.raises(JobCancelled):
            await job.result(timeout=DEADLINE)

    assert seen == ["JobCancelled"]


async def test_a_call_that_is_cancelled_while_it_waits_is_never_run(narrow: Headrace) -> None:
    gate = Gate()
    ran: list[str] = []

    @narrow.task
    def hold() -> None:
        gate.pass_through()

    @narrow.task
    def never() -> None:
        ran.append("cancelled")

    @narrow.task
    def mark() -> None:
        ran.append("next")

    async with working(narrow) as worker:
        holder = await hold.enqueue()
        await gate.wait_for(1)
        waiting = await never.enqueue()
        await all_running(worker, 2)
        assert await waiting.cancel()
        with pytest.raises(JobCancelled):
            await waiting.result(timeout=DEADLINE)
        gate.event.set()
        await holder.result(timeout=DEADLINE)
        await (await mark.enqueue()).result(timeout=DEADLINE)

    assert ran == ["next"]


async def test_timeouts_begin_when_a_thread_takes_the_call(narrow: Headrace) -> None:
    gate = Gate()

    @narrow.task(timeout=DEADLINE)
    def hold() -> None:
        gate.pass_through()

    @narrow.task(timeout=10 * SOON, attempts=1)
    def short() -> float:
        deadline = current_job().deadline
        assert deadline is not None
        return deadline.timestamp()

    @narrow.task(timeout=15 * SOON, attempts=1)
    async def clock() -> None:
        await asyncio.sleep(DEADLINE)

    async with working(narrow) as worker:
        holder = await hold.enqueue()
        await gate.wait_for(1)
        job = await short.enqueue()
        await all_running(worker, 2)
        # The job waits for the only thread for longer than its timeout, as the timeout of another job shows.
        await failure_of(await clock.enqueue())
        gate.event.set()
        await holder.result(timeout=DEADLINE)

        assert await job.result(timeout=DEADLINE) > 0


# Threads that hang


async def test_a_thread_that_hangs_in_c_code_is_given_up_and_replaced(
    narrow: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    @narrow.task(timeout=SOON, hard_timeout=2 * SOON, attempts=1)
    def hang() -> None:
        gate.pass_through()

    @narrow.task
    def harmless() -> str:
        return threading.current_thread().name

    async with working(narrow, grace=1.0):
        stuck = await hang.enqueue()
        await gate.wait_for(1)
        waiting = await harmless.enqueue()

        error, message = await failure_of(stuck)
        replacement = await waiting.result(timeout=DEADLINE)

        assert error == "JobTimeout"
        assert "was ended" in message
        assert replacement.endswith("-1")
        assert sum(row.kind == "thread" for row in narrow.census()) == 2

    assert "threads still run tasks that do not end" in caplog.text
    left = [thread for thread in threading.enumerate() if thread.name.startswith("headrace-")]
    assert [thread.daemon for thread in left] == [True]
    gate.event.set()
    left[0].join(DEADLINE)
    assert not left[0].is_alive()


async def test_worker_stops_in_time_although_all_its_threads_hang(server: PrivateServer) -> None:
    async with opened(fresh_app(server.url, threads=8)) as app:
        gate = Gate()

        @app.task
        def hang() -> None:
            gate.pass_through()

        async with working(app, concurrency=8, grace=0.0) as worker:
            jobs = await hang.enqueue_many([((),)] * 8)
            await gate.wait_for(8)

            began = gate.loop.time()
            worker.stop()
            await asyncio.wait_for(worker.signals.stopped.wait(), DEADLINE)
            took = gate.loop.time() - began

        await jobs[0].refresh()
        gate.event.set()
        for thread in threading.enumerate():
            if thread.name.startswith("headrace-"):
                thread.join(DEADLINE)

        assert jobs[0].status == "waiting"
        assert jobs[0].attempts == 0
        assert took < 6.0


# Interrupts against a pool alone


class Stub:
    """As much of an attempt as the pool asks for."""

    task = "stub"

    def __init__(self) -> None:
        self.interrupt: Callable[[type[BaseException]], None] | None = None
        self.waits = False
        self.begun = threading.Event()

    def begin(self) -> None:
        self.begun.set()


async def test_an_interrupt_strikes_its_own_call_or_none() -> None:
    census = Census()
    pool = Threads(census, maximum=2, name="stress")
    chance = random.Random(20)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def count(number: int) -> int:
        return sum(1 for _ in range(number))

    async def call(number: int, *, struck: bool) -> str:
        attempt: Any = Stub()
        running = asyncio.ensure_future(pool.run(attempt, count, (number,), {}))
        while not attempt.begun.is_set():  # noqa: ASYNC110 - turns of the loop are the clock of this test
            await asyncio.sleep(0)
        if struck:
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            if attempt.interrupt is not None:
                attempt.interrupt(JobTimeout)
        try:
            return "right" if await running == number else "wrong"
        except JobTimeout as error:
            return "struck" if struck and error.args else "wrong"

    async def caller(own: int) -> list[str]:
        return [await call(chance.choice((3, 30, 300, 3_000)), struck=bool((own + step) % 2)) for step in range(1_000)]

    try:
        outcomes = await asyncio.gather(*(caller(own) for own in range(4)))
    finally:
        sys.setswitchinterval(interval)
        left = await asyncio.to_thread(pool.close, DEADLINE)

    flat = [outcome for some in outcomes for outcome in some]
    assert set(flat) == {"right", "struck"}
    assert left == []
    assert census.is_empty()
    assert pool.lost == 0
