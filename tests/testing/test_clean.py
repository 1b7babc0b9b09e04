"""An app on a clean server of its own for one test, and a worker that runs until nothing is left to do."""

from __future__ import annotations

import asyncio
import doctest
import sys
from typing import TYPE_CHECKING

import pytest

from headrace import Exponential, Fixed, Headrace, JobStatus, current_job
from headrace.errors import ResultTimeout, UsageError
from headrace.server import start_private_server
from headrace.testing import connected, run_until_idle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    # Not the server of the other tests: this one is emptied again and again.
    with start_private_server(tmp_path_factory.mktemp("own"), extra=("--appendonly", "no", "--save", "")) as server:
        yield server


@pytest.mark.parametrize("module", ["headrace.testing.clean", "headrace.testing.idle"])
def test_the_example_in_the_docstring_holds(module: str) -> None:
    result = doctest.testmod(sys.modules[module])

    assert result.attempted > 0
    assert result.failed == 0


# Connected


async def test_an_app_is_pointed_at_the_server_and_given_back(app: Headrace, own: PrivateServer) -> None:
    before = app.settings

    async with connected(app, own) as same:
        assert same is app
        assert app.settings.redis_url == own.url
        assert app.settings.override({"redis_url": before.redis_url}) == before

    assert app.settings is before


async def test_each_block_starts_on_an_empty_server(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    for _ in range(2):
        async with connected(app, own):
            assert await app.queues() == []
            await note.enqueue()


def test_the_code_under_test_may_open_the_app_itself(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    async def code_under_test() -> int:
        async with app:
            job = await double.enqueue(21)
            await run_until_idle(app)
            return await job.result(timeout=5.0)

    with connected(app, own):
        assert double.enqueue_sync(1).status is JobStatus.WAITING
        assert asyncio.run(code_under_test()) == 42


async def test_an_open_app_is_refused(app: Headrace, own: PrivateServer) -> None:
    async with connected(app, own):
        with pytest.raises(UsageError, match="Close it"):
            await connected(app, own).__aenter__()


async def test_an_app_left_open_inside_is_named(app: Headrace, own: PrivateServer) -> None:
    block = connected(app, own)
    block.__enter__()
    await app.__aenter__()

    with pytest.raises(UsageError, match="is open still"):
        block.__exit__(None)

    await app.__aexit__()


async def test_a_stopped_server_is_refused_and_leaves_the_app_as_it_was(app: Headrace, tmp_path: Path) -> None:
    before = app.settings
    server = start_private_server(tmp_path)
    server.stop()

    with pytest.raises(UsageError, match="was stopped"):
        await connected(app, server).__aenter__()

    assert app.settings is before


# Until idle


async def test_jobs_run_until_none_is_left_also_those_of_jobs(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="tree", queue="a", keep_result=60.0)
    async def tree(depth: int) -> None:
        if depth:
            await leaf.using(queue=f"level-{depth}").enqueue(depth)
            await tree.enqueue(depth - 1)

    @app.task(name="leaf", queue="b")
    def leaf(depth: int) -> int:
        return depth

    async with connected(app, own):
        await tree.enqueue(5)
        stats = await run_until_idle(app, concurrency=2)

        assert (stats.completed, stats.failed, stats.running) == (11, 0, 0)
        assert sum([(await queue.stats()).waiting for queue in await app.queues()]) == 0


async def test_only_the_named_queues_are_worked_off(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    async with connected(app, own):
        await note.enqueue()
        await note.using(queue="other").enqueue()
        stats = await run_until_idle(app, ["other"])

        assert stats.completed == 1
        assert (await app.queue("default").stats()).waiting == 1


async def test_delayed_jobs_stay_unless_they_are_asked_for(app: Headrace, own: PrivateServer) -> None:
    seen: list[tuple[str, int]] = []

    @app.task(name="flaky", attempts=3, backoff=Exponential(base=1000.0, maximum=9000.0, jitter=False))
    async def flaky(name: str) -> None:
        seen.append((name, current_job().attempt))
        if current_job().attempt < 3:
            raise OSError

    async with connected(app, own):
        await flaky.using(delay=3600.0).enqueue("second")
        await flaky.using(delay=60.0).enqueue("first")
        assert (await run_until_idle(app)).completed == 0
        assert seen == []

        stats = await run_until_idle(app, delayed=True, concurrency=1)

        assert (stats.completed, stats.retried) == (2, 4)
        assert (await app.queue("default").stats()).delayed == 0
    assert seen[:2] == [("first", 1), ("second", 1)]
    assert sorted(seen) == [(name, attempt) for name in ("first", "second") for attempt in (1, 2, 3)]


async def test_a_paused_queue_is_left_as_it_is(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="note")
    async def note() -> None: ...

    async with connected(app, own):
        await app.queue("default").pause()
        await note.enqueue()
        stats = await run_until_idle(app)

        assert stats.completed == 0
        assert (await app.queue("default").stats()).waiting == 1


async def test_jobs_of_another_worker_are_waited_for(app: Headrace, own: PrivateServer) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        entered.set()
        await leave.wait()

    async with connected(app, own):
        other = app.worker(concurrency=1)
        running = asyncio.create_task(other.run())
        await slow.enqueue()
        await asyncio.wait_for(entered.wait(), 5)
        idling = asyncio.create_task(run_until_idle(app))
        done, _ = await asyncio.wait({idling}, timeout=0.2)
        assert not done

        leave.set()
        await asyncio.wait_for(idling, 5)

        other.stop()
        await asyncio.wait_for(running, 5)


async def test_a_job_that_hangs_is_handed_back_and_counted(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="hang", attempts=1)
    async def hang() -> None:
        await asyncio.sleep(60)

    async with connected(app, own):
        job = await hang.enqueue()
        with pytest.raises(ResultTimeout, match=r"not idle within 0\.3 s"):
            await run_until_idle(app, timeout=0.3)

        await job.refresh()
        assert (job.status, job.attempts) == (JobStatus.WAITING, 0)


async def test_jobs_without_end_are_counted_when_time_is_up(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="again", backoff=Fixed(1.0))
    async def again() -> None:
        await again.using(delay=60.0).enqueue()

    async with connected(app, own):
        await again.enqueue()

        with pytest.raises(ResultTimeout, match=r"enqueues itself"):
            await run_until_idle(app, timeout=0.5, delayed=True)


async def test_subscribers_have_had_their_events(app: Headrace, own: PrivateServer) -> None:
    seen: list[str] = []

    @app.task(name="note")
    async def note() -> None: ...

    async with connected(app, own):
        app.subscribe("job.completed", lambda event: seen.append(event.fields["job"]))
        job = await note.enqueue()
        await run_until_idle(app)

        assert seen == [job.id]


async def test_a_closed_app_is_opened_for_the_run(app: Headrace, own: PrivateServer) -> None:
    @app.task(name="note")
    def note() -> None: ...

    with connected(app, own):
        note.enqueue_sync()

        assert (await run_until_idle(app)).completed == 1
