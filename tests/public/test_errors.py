"""Every error of Headrace is met here as a user meets it, and says what to do.

One table: how to meet the error, and words that its text must contain. It is complete: a class of `headrace.errors`
that is missing from it fails a test. What came of a job that failed in a worker is read from the record of the failure.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace, current_job, errors
from headrace.errors import HeadraceError
from headrace.record import read_record
from headrace.server import check_server_version, start_private_server
from tests.live import DEADLINE, sibling, until, work_off, working
from tests.public import tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from headrace import Job
    from headrace.server import PrivateServer
    from tests.support.raw import Raw


@dataclass
class Stage:
    """What an error may need to appear."""

    make_app: Callable[..., Headrace]
    server: PrivateServer
    raw: Raw
    path: Path

    def app(self, **settings: Any) -> Headrace:
        """Make an app with one task, which nobody runs."""
        app = self.make_app(**settings)

        @app.task(name="mail", attempts=1)
        async def mail(to: str, body: str = "") -> str:
            return to + body

        return app

    async def enqueued(self, app: Headrace) -> Job[Any]:
        """Enqueue a job of that task."""
        task: Any = app.tasks.get("mail")
        job: Job[Any] = await task.enqueue("ann")
        return job

    def key(self, app: Headrace, part: str) -> str:
        """Name a key of the default queue."""
        return app.store.queue("default").keys[part]


@dataclass
class Failed(Exception):
    """A failure that a worker recorded: there the error is a text."""

    kind: str
    text: str


async def failure(app: Headrace, task: Any) -> None:
    """Run a job until it is dead and raise what was recorded of it."""
    async with app:
        job = await task.enqueue()
        await work_off(app)
        await job.refresh()
        raise Failed(job.failures[-1].error, job.failures[-1].message)


# How to meet each of them


async def option(stage: Stage) -> None:
    task: Any = stage.app().tasks.get("mail")
    task.using(delay=-1.0)


async def argument(stage: Stage) -> None:
    async with stage.app() as app:
        task: Any = app.tasks.get("mail")
        await task.enqueue(body="hello")


async def encoding(stage: Stage) -> None:
    async with stage.app() as app:
        task: Any = app.tasks.get("mail")
        await task.enqueue(object())


async def too_large(stage: Stage) -> None:
    async with stage.app(record_limit_bytes=1_024, compress_over_bytes=0) as app:
        task: Any = app.tasks.get("mail")
        await task.enqueue("x" * 2_000)


async def usage(stage: Stage) -> None:
    await stage.enqueued(stage.app())


async def setting(_: Stage) -> None:
    Headrace(settings={"queue_concurrency": 0})


async def conflict(stage: Stage) -> None:
    async with stage.app() as app:
        base = await app.fleet.read()
        await app.fleet.store({"QUEUE_CONCURRENCY": "5"}, base=base, author="ann")
        await app.fleet.store({"QUEUE_CONCURRENCY": "7"}, base=base, author="bob")


async def pool_timeout(stage: Stage) -> None:
    async with stage.app(redis_max_connections=4, redis_min_connections=0) as app, working(app):
        await app.worker().run()


async def pool_closed(stage: Stage) -> None:
    async with stage.app() as app:
        waiting = asyncio.create_task((await stage.enqueued(app)).result())
        await until(_is_waiting(app), "the result is waited for")
    await waiting


def _is_waiting(app: Headrace) -> Callable[[], Awaitable[bool]]:
    async def waits() -> bool:
        await asyncio.sleep(0)
        return len(app._open_session.inbox) == 1

    return waits


async def result_timeout(stage: Stage) -> None:
    async with stage.app() as app:
        await (await stage.enqueued(app)).result(timeout=0.01)


async def connection_lost(stage: Stage) -> None:
    app = Headrace("unix:///nonexistent/server.sock", settings={"redis_acquire_timeout": 0.05})
    async with app:
        await stage.enqueued(app)


async def refused(stage: Stage) -> None:
    async with stage.app() as app:
        stage.raw("SET", stage.key(app, "jobs"), "no hash")
        try:
            await stage.enqueued(app)
        finally:
            stage.raw("DEL", stage.key(app, "jobs"))


async def too_old(_: Stage) -> None:
    check_server_version({"redis_version": "5.0.14"})


async def start_failed(stage: Stage) -> None:
    (stage.path / "file").write_text("in the way")
    await asyncio.to_thread(start_private_server, stage.path / "file")


async def job_failed(stage: Stage) -> None:
    app = stage.make_app()

    @app.task(name="bad", attempts=1)
    async def bad() -> None:
        raise ValueError("no such address")

    async with app, working(app):
        await (await bad.enqueue()).result(DEADLINE)


async def job_cancelled(stage: Stage) -> None:
    async with stage.app() as app:
        job = await stage.enqueued(app)
        await job.cancel()
        await job.result(DEADLINE)


async def job_not_found(stage: Stage) -> None:
    async with stage.app() as app:
        await app.queue("default").job("nowhere").refresh()


async def job_timeout(stage: Stage) -> None:
    app = stage.make_app()

    @app.task(name="slow", attempts=1, timeout=0.02)
    async def slow() -> None:
        await asyncio.sleep(60)

    await failure(app, slow)


async def process_died(stage: Stage) -> None:
    app = stage.make_app()
    await failure(app, app.task(name="die", attempts=1, process=True)(tasks.die))


async def memory_exceeded(stage: Stage) -> None:
    app = stage.make_app()
    await failure(app, app.task(name="big", attempts=1, process=True, memory_limit_mb=64)(tasks.need_memory))


async def remote(stage: Stage) -> None:
    app = stage.make_app()
    seen: list[Exception] = []

    class Look:
        def error(self, _job: Any, error: Exception) -> None:
            seen.append(error)

    app.middleware(Look())
    task = app.task(name="odd", attempts=1, process=True)(tasks.raise_unknown)
    async with app:
        await task.enqueue()
        await work_off(app)
    raise seen[0]


async def lease_lost(stage: Stage) -> None:
    app = stage.make_app()

    @app.task(name="late", attempts=1)
    async def late() -> None:
        held, own = stage.key(app, "held"), current_job().id
        hold = stage.raw("HGET", held, own)
        stage.raw("HSET", held, own, "999+5+another-worker")
        try:
            await current_job().progress(50)
        finally:
            stage.raw("HSET", held, own, hold)

    await failure(app, late)


async def unknown_task(stage: Stage) -> None:
    async with stage.app() as app:
        job = await stage.enqueued(app)
        await work_off(app)
        async with sibling(app) as other:
            await other.queue("default").job(job.id).result(DEADLINE)


async def corrupt(stage: Stage) -> None:
    async with stage.app() as app:
        job = await stage.enqueued(app)
        await work_off(app)
        stage.raw("HSET", stage.key(app, "outcomes"), job.id, "garbage")
        try:
            await job.result(DEADLINE)
        finally:
            await app.queue("default").clear("completed")


async def too_new(_: Stage) -> None:
    read_record(b"\x09\x05" + b"\0" * 20)


async def job_error(stage: Stage) -> None:
    app = stage.make_app()

    @app.task(name="key", attempts=1)
    def press() -> None:
        raise KeyboardInterrupt

    await failure(app, press)


TABLE: dict[type[HeadraceError], tuple[Callable[[Stage], Awaitable[None]], list[str]]] = {
    errors.OptionError: (option, ["delay=-1.0", "expected seconds from 0 to"]),
    errors.ArgumentError: (argument, ["task 'mail'", "missing a required argument: 'to'", "It takes (to: str, body:"]),
    errors.EncodingError: (encoding, ["a value of type builtins.object", "Pass numbers, text"]),
    errors.RecordTooLarge: (
        too_large,
        ["task 'mail'", "the limit is 1024", "pass its key, or raise HEADRACE_"],
    ),
    errors.UsageError: (usage, ["not open", "Use it inside `async with app:`"]),
    errors.SettingsConflict: (
        conflict,
        ["at version 1, written by ann, no longer at version 0", "Look at `headrace config diff`, and repeat"],
    ),
    errors.SettingError: (setting, ["queue_concurrency=0", "a whole number from 1 to 10000", "Correct the argument"]),
    errors.PoolTimeout: (
        pool_timeout,
        ["lane 'jobs' has no connection left: 1 of 1 in use by", "Raise REDIS_MAX_CONNECTIONS"],
    ),
    errors.PoolClosed: (pool_closed, ["The app closed before the job had ended", "the job goes on"]),
    errors.ResultTimeout: (result_timeout, ["did not end within 0.01 s", "it goes on", "`headrace jobs why`"]),
    errors.ConnectionLost: (connection_lost, ["unix:///nonexistent/server.sock", "Check that the server runs"]),
    errors.CommandRefused: (refused, ["refused enqueue: WRONGTYPE", "Look at its log and memory"]),
    errors.ServerTooOld: (too_old, ["redis 5.0.14", "6.2", "Upgrade"]),
    errors.ServerStartFailed: (start_failed, ["file", "folder"]),
    errors.JobError: (job_error, ["KeyboardInterrupt in a thread", "Raise another exception"]),
    errors.JobFailed: (job_failed, ["task 'bad' is dead after 1 attempt", "no such address", "`headrace jobs show"]),
    errors.JobCancelled: (job_cancelled, ["task 'mail' was cancelled", "Enqueue it again, or call retry()"]),
    errors.JobNotFound: (job_not_found, ["job nowhere is not in queue 'default'", "Set keep_result="]),
    errors.JobTimeout: (job_timeout, ["'slow' ran past its soft timeout", "raise timeout= of the task"]),
    errors.ProcessDied: (process_died, ["'die'", "exit status 3", "os._exit, or its standard error says why"]),
    errors.MemoryExceeded: (memory_exceeded, ["task 'big'", "more memory than its 64 MB", "Raise memory_limit_mb="]),
    errors.RemoteError: (remote, ["of its own kind"]),
    errors.LeaseLost: (lease_lost, ["not held by this worker any more", "Stop; another worker runs it"]),
    errors.UnknownTask: (
        unknown_task,
        ["task 'mail'", "has not registered", "Import the module that defines"],
    ),
    errors.RecordCorrupt: (corrupt, ["an outcome of 7 bytes cannot be read", "Something else wrote to this key"]),
    errors.RecordTooNew: (too_new, ["version 9", "this process knows version 1", "Upgrade Headrace in this process"]),
}
#: Classes that only gather others; nobody raises them.
BRANCHES = {HeadraceError, errors.CallError, errors.WaitError, errors.ServerError}


@pytest.fixture
def stage(make_app: Callable[..., Headrace], server: PrivateServer, raw: Raw, tmp_path: Path) -> Stage:
    return Stage(make_app, server, raw, tmp_path)


@pytest.mark.parametrize("kind", list(TABLE), ids=lambda kind: kind.__name__)
async def test_an_error_says_what_happened_and_what_to_do(kind: type[HeadraceError], stage: Stage) -> None:
    meet, words = TABLE[kind]

    with pytest.raises((HeadraceError, Failed)) as caught:
        await meet(stage)

    error = caught.value
    name, text = (error.kind, error.text) if isinstance(error, Failed) else (type(error).__name__, str(error))
    assert name == kind.__name__
    assert [word for word in words if word not in text] == [], text
    # Sentences; no text pasted into another with its full stop. What a task says in a child process is its own affair.
    assert re.search(r"[\w)'`\]]\.$", text) or kind is errors.RemoteError, text
    assert ".." not in text.replace("...", ""), text


def test_the_table_is_complete() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, HeadraceError)}

    assert defined - BRANCHES - TABLE.keys() == set(), "Add how to meet them to TABLE."
    assert TABLE.keys() - defined == set()
    assert all(kind.__subclasses__() for kind in BRANCHES)


def test_every_error_is_met_by_users_under_one_name() -> None:
    assert all(kind.__module__ == "headrace.errors" for kind in TABLE)
