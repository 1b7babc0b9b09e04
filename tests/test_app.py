"""The app: opening and closing, what it leaves behind, events, and what is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed, Headrace, Retry, current_job
from headrace.census import Kind
from headrace.errors import ConnectionLost, OptionError, PoolClosed, SettingError, UsageError
from headrace.session import Session
from headrace.settings import Settings
from tests.live import DEADLINE, opened, until, work_off, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace.events import Event
    from headrace.server import PrivateServer


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with opened(make_app()) as app:
        yield app


def kinds(app: Headrace) -> set[Kind]:
    return {row.kind for row in app.census()}


# Opening and closing


async def test_the_census_is_empty_after_each_of_many_openings(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="work")
    async def work(number: int) -> int:
        return number

    @app.task(name="plain")
    def plain(number: int) -> int:
        return number

    for number in range(3):
        async with app:
            app.subscribe("job.*", lambda _: None)
            async with working(app):
                jobs = [await work.enqueue(number), await plain.enqueue(number), plain.enqueue_sync(number)]
                assert [await job.result(DEADLINE) for job in jobs] == [number] * 3
            assert {Kind.CONNECTION, Kind.SUBSCRIPTION} <= kinds(app)
        assert app.census() == []
        assert not app._sync.is_open


async def test_an_app_opened_twice_closes_with_its_last_exit(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    async with app:
        async with app as same:
            assert same is app
        assert (await app.queue("default").stats()).waiting == 0

    with pytest.raises(UsageError, match="not open"):
        app.queue("default")


async def test_an_app_opened_by_many_at_once_opens_one_session(
    make_app: Callable[..., Headrace], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    opened_sessions: list[object] = []
    open_session = Session.open

    async def noted(*arguments: Any) -> Any:
        opened_sessions.append(await open_session(*arguments))
        return opened_sessions[-1]

    monkeypatch.setattr("headrace.session.Session.open", noted)

    async def use() -> None:
        async with app:
            await app.queues()

    await asyncio.gather(*(use() for _ in range(20)))

    assert len(opened_sessions) == 1


async def test_an_app_that_is_opened_while_it_closes_waits_for_that(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    handed_over, let_go = asyncio.Event(), asyncio.Event()

    async def take(_: Event) -> None:
        handed_over.set()
        await let_go.wait()

    async def use() -> None:
        async with app:
            subscription = app.subscribe("job.*", lambda _: None)
            await app.queues()
            assert not subscription.closed

    await app.__aenter__()
    app.subscribe("job.completed", take)
    app.events.publish("job.completed")
    closing = asyncio.create_task(app.__aexit__())
    await asyncio.wait_for(handed_over.wait(), DEADLINE)
    again = [asyncio.create_task(use()) for _ in range(3)]
    done, _ = await asyncio.wait(again, timeout=0.05)
    let_go.set()
    await asyncio.wait_for(asyncio.gather(closing, *again), DEADLINE)

    assert not done
    assert app.census() == []


def test_an_app_is_used_by_one_loop_after_another(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="work")
    async def work() -> str:
        return "done"

    async def use() -> str:
        async with app:
            job = await work.enqueue()
            await work_off(app)
            return await job.result(DEADLINE)

    assert [asyncio.run(use()) for _ in range(3)] == ["done"] * 3


async def test_an_app_that_cannot_be_opened_leaves_nothing(make_app: Callable[..., Headrace]) -> None:
    app = make_app("unix:///nonexistent/server.sock", redis_acquire_timeout=0.2)

    for _ in range(2):
        with pytest.raises(ConnectionLost, match="nonexistent/server"):
            await app.__aenter__()
        assert app.census() == []
        assert app._opened == 0


async def test_cancelling_the_opening_leaves_nothing(make_app: Callable[..., Headrace]) -> None:
    app = make_app("unix:///nonexistent/server.sock", redis_acquire_timeout=30.0)

    opening = asyncio.create_task(app.__aenter__())
    done, _ = await asyncio.wait({opening}, timeout=0.05)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert not done
    assert app.census() == []


async def test_waits_for_results_end_when_the_app_closes(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="work")
    async def work() -> None: ...

    async with app:
        job = await work.enqueue()
        waiting = asyncio.create_task(job.result())
        await until(_waits_of(app), "the result is waited for")

    with pytest.raises(PoolClosed, match="closed"):
        await waiting


def _waits_of(app: Headrace) -> Callable[[], Any]:
    async def waits() -> bool:
        await asyncio.sleep(0)
        return len(app._open_session.inbox) == 1

    return waits


async def test_an_error_in_the_block_is_let_out_and_closes_the_app(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    with pytest.raises(LookupError, match="of the user"):
        await _fail_inside(app)

    assert app.census() == []


async def _fail_inside(app: Headrace) -> None:
    async with app:
        raise LookupError("of the user")


# Use before it is open


@pytest.mark.parametrize(
    "use",
    [
        lambda app, _: app.queue("default"),
        lambda app, _: app.queues(),
        lambda app, _: app.pool.stats(),
        lambda app, _: app.store,
        lambda app, _: app.clock,
        lambda _, task: task.enqueue(1),
        lambda _, task: task.enqueue_many([((1,),)]),
        lambda _, task: task.using(delay=1.0).enqueue(1),
    ],
)
async def test_use_before_opening_says_how_to_open(
    make_app: Callable[..., Headrace], use: Callable[[Headrace, Any], Any]
) -> None:
    app = make_app()

    @app.task(name="work")
    async def work(number: int) -> None: ...

    async def call() -> None:
        answer = use(app, work)
        if asyncio.iscoroutine(answer):
            await answer

    with pytest.raises(UsageError, match=r"The app is not open\. Use it inside `async with app:`"):
        await call()


async def test_handles_outlive_the_app_but_cannot_be_asked(make_app: Callable[..., Headrace]) -> None:
    app = make_app()

    @app.task(name="work")
    async def work() -> str:
        return "done"

    async with app:
        job = await work.enqueue()
    for ask in (job.refresh, job.cancel, job.retry, job.why, job.result):
        with pytest.raises(UsageError, match="not open"):
            await ask()

    async with app:
        assert (await job.refresh()).status == "waiting"


# What is refused


def test_a_url_beside_settings_is_refused() -> None:
    with pytest.raises(OptionError, match="give the URL inside the settings"):
        Headrace("redis://127.0.0.1:6379/0", settings=Settings())


def test_a_malformed_url_or_setting_is_refused_when_the_app_is_made() -> None:
    with pytest.raises(SettingError, match="redis_url"):
        Headrace("http://127.0.0.1")
    with pytest.raises(SettingError, match="no such setting"):
        Headrace(settings={"concurency": 5})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"concurrency": 0}, "concurrency=0: expected a whole number from 1 to 10000"),
        ({"concurrency": -1}, "expected a whole number from 1"),
        ({"concurrency": 2.0}, "expected a whole number from 1"),
        ({"queues": "mail"}, r"queues='mail': expected a list of names.*\['mail'\]"),
        ({"queues": ["mail", "two words"]}, "queue name 'two words'"),
        ({"queues": {"mail": 0}}, "slots of queue 'mail'=0"),
        ({"queues": {"mail": True}}, "slots of queue 'mail'=True"),
        ({"grace": -1.0}, "grace=-1.0: expected seconds"),
    ],
)
async def test_a_worker_with_wrong_options_is_refused(
    make_app: Callable[..., Headrace], arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(OptionError, match=complaint):
        make_app().worker(**arguments)


def test_a_worker_serves_the_queues_of_all_tasks_unless_told(make_app: Callable[..., Headrace]) -> None:
    app = make_app(queue_concurrency=7)

    assert app.worker().queues == {"default": None}

    @app.task(name="one", queue="mail")
    async def one() -> None: ...

    @app.task(name="two", queue="bulk")
    async def two() -> None: ...

    assert app.worker().queues == {"bulk": None, "mail": None}
    assert app.worker(["mail"]).queues == {"mail": None}
    assert app.worker({"mail": 3, "bulk": None}).queues == {"mail": 3, "bulk": None}
    assert (app.worker().concurrency, app.worker(concurrency=3).concurrency) == (7, 3)


# Events


def record(app: Headrace, pattern: str) -> list[Event]:
    seen: list[Event] = []
    app.subscribe(pattern, seen.append)
    return seen


async def test_a_subscriber_hears_of_every_end_of_an_attempt(app: Headrace) -> None:
    seen = record(app, "job.*")
    entered = asyncio.Event()

    @app.task(name="good", queue="q")
    async def good() -> None: ...

    @app.task(name="flaky", queue="q", attempts=3, backoff=Fixed(0.25))
    async def flaky() -> None:
        if current_job().attempt == 1:
            raise OSError
        if current_job().attempt == 2:
            raise Retry(after=0.0)

    @app.task(name="bad", queue="q", attempts=1)
    async def bad() -> None:
        raise ValueError

    @app.task(name="long", queue="q")
    async def long() -> None:
        entered.set()
        await asyncio.sleep(60)

    async with working(app):
        jobs = {task.name: await task.enqueue() for task in (good, flaky, bad, long)}
        await asyncio.wait_for(entered.wait(), DEADLINE)
        await jobs["long"].cancel()
        await jobs["flaky"].result(DEADLINE)
        await until(_has_ended(app, "q"), "all jobs have ended")
        await app.events.flush()

    facts = [(event.name, event.fields["task"], event.fields["attempt"]) for event in seen]
    assert sorted(facts) == [
        ("job.cancelled", "long", 1),
        ("job.completed", "flaky", 3),
        ("job.completed", "good", 1),
        ("job.failed", "bad", 1),
        ("job.retried", "flaky", 1),
        ("job.retried", "flaky", 2),
    ]
    assert all(event.fields["job"] == jobs[event.fields["task"]].id for event in seen)
    assert {event.fields["queue"] for event in seen} == {"q"}
    by_name = {(event.name, event.fields["attempt"]): event.fields for event in seen}
    assert by_name["job.failed", 1]["error"] == "ValueError"
    assert (by_name["job.retried", 1]["delay"], by_name["job.retried", 1]["error"]) == (0.25, "OSError")
    assert 0 <= by_name["job.completed", 3]["seconds"] < 10


async def test_a_waiting_job_that_is_cancelled_is_told_to_nobody_here(app: Headrace) -> None:
    seen = record(app, "job.*")

    @app.task(name="work")
    async def work() -> None: ...

    job = await work.enqueue()
    await job.cancel()
    await work_off(app)
    await app.events.flush()

    # Events are those of the worker's process; no worker ever held this job.
    assert seen == []


async def test_a_subscriber_hears_only_what_it_asked_for_and_until_it_closes(app: Headrace) -> None:
    completed, failed, everything = record(app, "job.completed"), record(app, "job.failed"), record(app, "*")
    closed: list[Event] = []
    app.subscribe("job.completed", closed.append).close()

    @app.task(name="work", attempts=1)
    async def work(number: int) -> None:
        if number:
            raise ValueError

    await work.enqueue_many([((0,),), ((1,),), ((0,),)])
    await work_off(app)
    await app.events.flush()

    assert (len(completed), len(failed), len(everything), len(closed)) == (2, 1, 3, 0)


async def test_a_subscriber_that_fails_harms_no_job(app: Headrace) -> None:
    def fail(_: Event) -> None:
        raise LookupError("of the subscriber")

    app.subscribe("job.completed", fail)

    @app.task(name="work")
    async def work() -> str:
        return "done"

    async with working(app):
        assert await (await work.enqueue()).result(DEADLINE) == "done"


async def test_subscriptions_are_closed_with_the_app(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    before = app.subscribe("*", lambda _: None)

    async with app:
        inside = app.subscribe("*", lambda _: None)
        assert not before.closed

    assert [subscription.closed for subscription in (before, inside)] == [True, True]


def _has_ended(app: Headrace, queue: str) -> Callable[[], Any]:
    async def ended() -> bool:
        stats = await app.queue(queue).stats()
        return stats.waiting + stats.delayed + stats.active == 0

    return ended


async def test_queues_are_listed_once_they_were_used(app: Headrace) -> None:
    @app.task(name="work")
    async def work() -> None: ...

    assert await app.queues() == []
    for name in ("b", "a", "b"):
        await work.using(queue=name).enqueue()

    assert [queue.name for queue in await app.queues()] == ["a", "b"]


async def test_an_app_talks_to_its_server_by_name(app: Headrace, server: PrivateServer) -> None:
    stats = app.pool.stats()

    assert stats.total >= 1
    assert stats.maximum == app.settings.redis_max_connections
    assert str(app.pool.address) in f"{server.url}?db=0"
