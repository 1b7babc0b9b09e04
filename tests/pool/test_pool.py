"""The pool never holds more connections than its maximum, and says who holds them when there is none left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace.census import Census
from headrace.errors import OptionError, PoolClosed, PoolTimeout
from headrace.pool.address import parse_address
from headrace.pool.link import Lane
from headrace.pool.pool import Pool
from headrace.resp import pack_command
from tests.live import plain_link, until
from tests.support.crew import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from headrace.server import PrivateServer
    from tests.support.raw import Raw

PING = pack_command("PING")
NAME = "pool-test"


@pytest.fixture
async def pool(server: PrivateServer) -> AsyncIterator[Pool]:
    census = Census()
    pool = Pool(parse_address(server.url), maximum=5, census=census, client_name=NAME)
    yield pool
    await pool.close()
    assert census.is_empty()


def connections(raw: Raw, name: str = NAME) -> int:
    """How many connections of this name the server sees."""
    return sum(f"name={name}" in line for line in raw("CLIENT", "LIST").decode().splitlines())


async def gone(raw: Raw) -> bool:
    return connections(raw) == 0


async def test_the_link_beyond_the_share_of_its_lane_is_refused_with_the_holders(pool: Pool) -> None:
    pool.link(Lane.CONTROL, "control", owner="app")
    last = pool.link(Lane.JOBS, "jobs", owner="worker")

    with pytest.raises(PoolTimeout) as caught:
        pool.link(Lane.JOBS, "one more", owner="worker")

    text = str(caught.value)
    assert f"lane 'jobs' has no connection left: 1 of 1 in use by 'worker' ({NAME}:jobs:jobs)" in text
    assert "Raise REDIS_MAX_CONNECTIONS" in text
    await pool.release(last)
    pool.link(Lane.JOBS, "one more", owner="worker")


async def test_links_open_one_connection_each_however_many_call_at_once(pool: Pool, raw: Raw) -> None:
    links = [pool.link(Lane.USER, f"user{number}", owner="app") for number in range(2)]

    answers = await asyncio.gather(*(links[number % 2].roundtrip(PING, 1) for number in range(500)))

    assert answers == [[b"PONG"]] * 500
    assert connections(raw) == 2
    stats = pool.stats()
    assert (stats.total, stats.maximum, stats.active, stats.waiting) == (2, 5, 0, 0)
    assert (stats.opened_total, stats.calls_total, stats.response.count) == (2, 500, 500)
    assert (stats.lanes["user"].active, stats.lanes["user"].share) == (2, 2)


async def test_a_link_does_not_open_before_its_first_call_and_closes_with_its_release(pool: Pool, raw: Raw) -> None:
    link = pool.link(Lane.USER, "user", owner="app")
    assert connections(raw) == 0

    await link.roundtrip(PING, 1)
    assert connections(raw) == 1
    await pool.release(link)

    await until(lambda: gone(raw), "the server sees the end of the connection")
    assert pool.stats().opened_total == 1


async def test_calls_under_way_end_with_the_pool(pool: Pool) -> None:
    link = pool.link(Lane.BLOCKING, "wake", owner="worker")
    await link.roundtrip(PING, 1)
    blocked = asyncio.create_task(link.roundtrip(pack_command("BLPOP", "nothing-is-here", "30"), 1))
    await asyncio.sleep(0)
    assert link.outstanding == 1

    await pool.close()

    with pytest.raises(PoolClosed):
        await asyncio.wait_for(blocked, DEADLINE)
    with pytest.raises(PoolClosed):
        pool.link(Lane.USER, "late", owner="app")


async def test_an_app_stays_within_its_maximum_and_a_worker_too_many_is_refused(
    make_app: Callable[..., Headrace], raw: Raw
) -> None:
    app = make_app(redis_max_connections=4)
    async with app:
        name = plain_link(app.control).name.rsplit(":", 2)[0]
        first = app.worker(["work"], concurrency=50)
        running = asyncio.create_task(first.run())
        await asyncio.wait_for(first.signals.reserved.wait(), DEADLINE)

        with pytest.raises(PoolTimeout, match=r"lane 'jobs' has no connection left: 1 of 1 in use by 'worker'"):
            await app.worker(["work"]).run()

        assert connections(raw, name) <= 4
        first.stop()
        await running


async def test_a_maximum_out_of_its_bounds_is_refused(make_app: Callable[..., Headrace]) -> None:
    with pytest.raises((OptionError, ValueError), match="redis_max_connections=3: expected"):
        make_app(redis_max_connections=3)
