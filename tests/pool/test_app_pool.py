"""The pool of an app: redis-py clients and the engine share one maximum, one clock, one book of what is live."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
import redis.asyncio

from headrace.errors import PoolTimeout
from headrace.pool import Lane
from headrace.resp import pack_command
from tests.live import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from headrace.events import Event
    from headrace.worker.worker import Worker
    from tests.support.raw import Raw

DEADLINE = 10.0


@pytest.fixture
async def app(make_app: Callable[..., Headrace]) -> AsyncIterator[Headrace]:
    async with make_app() as app:
        # Both links of the app are open from here on.
        await app.queues()
        yield app


async def see(look: Callable[[], bool], what: str) -> None:
    """Wait until a look tells so."""

    async def probe() -> bool:
        return look()

    await until(probe, what)


def connections(raw: Raw, app: Headrace) -> int:
    """How many connections of an app the server sees."""
    name = app.pool.connection_kwargs["client_name"].rsplit(":", 2)[0]
    return sum(f"name={name}:" in line for line in raw("CLIENT", "LIST").decode().splitlines())


async def test_a_client_of_redis_py_borrows_from_the_pool_of_an_app(app: Headrace, prefix: str) -> None:
    client = redis.asyncio.Redis(connection_pool=app.pool)

    await client.set(f"{prefix}:note", "here", ex=60)
    found = await client.get(f"{prefix}:note")
    await client.delete(f"{prefix}:note")

    assert found == b"here"
    stats = app.pool.stats()
    assert stats.lanes["user"].active == 1, "the user link of the app alone is in use again"
    assert stats.lanes["user"].share == 60
    assert (stats.minimum, stats.maximum) == (20, 100)


async def test_an_app_that_lends_nothing_opens_no_more_than_its_links(app: Headrace, raw: Raw) -> None:
    assert connections(raw, app) == app.pool.stats().total == 2


async def test_the_minimum_is_opened_with_the_first_loan(app: Headrace, raw: Raw) -> None:
    await redis.asyncio.Redis(connection_pool=app.pool).ping()

    await see(lambda: app.pool.stats().total == 20, "the minimum is open")
    await see(lambda: connections(raw, app) == 20, "the server sees them")


async def test_a_minimum_that_was_set_is_open_when_the_app_is(make_app: Callable[..., Headrace], raw: Raw) -> None:
    app = make_app(redis_min_connections=7, redis_max_connections=12)

    async with app:
        await app.queues()

        assert connections(raw, app) == app.pool.stats().total == 7
    assert app.census() == []


async def test_links_and_loans_together_stay_within_the_maximum(make_app: Callable[..., Headrace], raw: Raw) -> None:
    app = make_app(redis_max_connections=10, redis_acquire_timeout=0.1)
    highest = 0
    async with app:
        client = redis.asyncio.Redis(connection_pool=app.pool)

        async def use() -> int:
            nonlocal highest
            try:
                await client.blpop([f"nothing-{app.settings.prefix}"], timeout=0.5)
            except PoolTimeout:
                return 1
            finally:
                highest = max(highest, connections(raw, app))
            return 0

        refused = sum(await asyncio.gather(*(use() for _ in range(30))))

        assert refused > 0
        assert highest <= 10
        assert app.pool.stats().total <= 10
        assert app.pool.stats().timeouts_total == refused


async def test_users_who_hold_their_whole_lane_do_not_hold_up_the_worker(make_app: Callable[..., Headrace]) -> None:
    app = make_app(redis_max_connections=10)

    @app.task(queue="work")
    async def work(number: int) -> int:
        return number

    async with app:
        held = [await app.pool.get_connection() for _ in range(app.pool.stats().lanes["user"].share - 1)]
        waiting = asyncio.create_task(app.pool.get_connection())
        worker: Worker = app.worker(["work"], concurrency=5)
        running = asyncio.create_task(worker.run())

        job = await work.enqueue(41)
        result = await job.result(timeout=DEADLINE)
        health = await app.health()

        assert result == 41
        assert not waiting.done()
        assert health.latency.recent.p99 < 1.0
        waiting.cancel()
        for connection in held:
            await app.pool.release(connection)
        worker.stop()
        await asyncio.wait_for(running, DEADLINE)


async def test_a_client_of_a_lane_is_named_among_the_holders(make_app: Callable[..., Headrace]) -> None:
    app = make_app(redis_max_connections=10, redis_acquire_timeout=0.05)

    async with app:
        lane = app.pool.lane(Lane.JOBS, owner="reports", purpose="export")
        held = [await lane.get_connection(), await lane.get_connection()]

        with pytest.raises(PoolTimeout, match=r"lane 'jobs' gave no connection within .* 2 of 2 in use") as caught:
            await lane.get_connection()

        assert all("by 'reports' (export) at " in str(holder) for holder in caught.value.holders)
        assert len(caught.value.holders) == 2
        for connection in held:
            await lane.release(connection)


async def test_the_bus_tells_of_an_exhausted_lane_and_of_its_recovery(make_app: Callable[..., Headrace]) -> None:
    app = make_app(redis_max_connections=4)
    heard: list[Event] = []
    recovered = asyncio.Event()

    def hear(event: Event) -> None:
        heard.append(event)
        if event.name == "pool.recovered":
            recovered.set()

    async with app:
        app.subscribe("pool.*", hear)
        lane = app.pool.lane("jobs")
        held = await lane.get_connection()
        waiting = asyncio.create_task(lane.get_connection())
        await see(lambda: bool(heard), "the lane counts as exhausted")
        await lane.release(held)
        await lane.release(await waiting)
        await asyncio.wait_for(recovered.wait(), DEADLINE)

    assert [event.name for event in heard] == ["pool.exhausted", "pool.recovered"]
    assert heard[0].fields["lane"] == "jobs"
    assert isinstance(duration := heard[1].fields["duration"], float)
    assert duration >= 1.0


async def test_an_open_app_writes_its_figures_each_interval(
    make_app: Callable[..., Headrace], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headrace.pool")
    app = make_app(pool_stats_interval=0.2)

    async with app:
        await redis.asyncio.Redis(connection_pool=app.pool).ping()
        await see(lambda: any(line.message == "pool stats" for line in caplog.records), "a line is written")

    line = next(line for line in caplog.records if line.message == "pool stats")
    fields = vars(line)
    assert fields["pool"] == "app"
    assert (fields["minimum"], fields["maximum"]) == (20, 100)
    assert {"active", "idle", "opening", "waiting", "waiting_highest", "errors", "timeouts"} <= set(fields)
    assert {f"{what}_{which}_ms" for what in ("wait", "response") for which in ("mean", "p50", "p95", "p99")} <= set(
        fields
    )


async def test_the_wait_of_an_idle_worker_is_no_response_time(app: Headrace) -> None:
    link = app.pool.link(Lane.BLOCKING, "idle", owner="test")
    before = app.pool.stats()

    assert await link.roundtrip(pack_command("BLPOP", "nothing", "0.3"), 1) == [None]

    after = app.pool.stats()
    await app.pool.release(link)
    assert (after.response.count, after.response.maximum) == (before.response.count, before.response.maximum)
    assert after.calls_total == before.calls_total + 1


async def test_shrinking_gives_idle_connections_back_to_the_server(app: Headrace, raw: Raw) -> None:
    lane = app.pool.lane("user")
    held = [await lane.get_connection() for _ in range(30)]
    for connection in held:
        await lane.release(connection)

    closed = app.pool.shrink()

    assert closed == 30 + 2 - 20, "what is above the minimum, links included"
    await see(lambda: connections(raw, app) == 20, "the server sees no more than the minimum")


async def test_a_link_takes_the_place_of_an_idle_connection_when_the_pool_is_full(
    make_app: Callable[..., Headrace], raw: Raw
) -> None:
    app = make_app(redis_max_connections=4, redis_min_connections=0)
    async with app:
        await app.queues()
        blocking, jobs = app.pool.lane("blocking"), app.pool.lane("jobs")
        for lane, held in [(lane, await lane.get_connection()) for lane in (blocking, jobs)]:
            await lane.release(held)
        assert app.pool.stats().total == 4

        link = app.pool.link(Lane.JOBS, "more", owner="test")
        await link.roundtrip(b"*1\r\n$4\r\nPING\r\n", 1)

        assert app.pool.stats().total == connections(raw, app) == 4
        await app.pool.release(link)
