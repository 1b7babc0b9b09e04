"""What a pool looks after by itself: idle and old connections, long holds, exhaustion, figures and its log line."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio

from headrace.pool.options import BOUNDS, PoolOptions
from tests.live import until
from tests.support.pools import agrees, borrow, give_back, lending, seen, until_seen, waiting

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.support.raw import Raw
    from tests.support.stalls import Stalls


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == message]


async def logged(caplog: pytest.LogCaptureFixture, message: str, count: int = 1) -> None:
    async def there() -> bool:
        return len(lines(caplog, message)) >= count

    await until(there, f"{message!r} is logged")


async def test_idle_connections_above_the_minimum_are_closed_after_a_time(
    server: PrivateServer, raw: Raw, prefix: str, stalls: Stalls
) -> None:
    async with lending(server.url, max_connections=8, min_connections=3, idle_timeout=0.4, client_name=prefix) as pool:
        await give_back(pool, await borrow(pool, 8))
        idle = time.monotonic()
        assert seen(raw, prefix) == 8

        await until_seen(raw, prefix, 3)

        # A quarter of the time later at the latest, and never sooner.
        assert time.monotonic() - idle >= 0.35
        assert stalls.lasted(idle) < 1.5
        await asyncio.sleep(0.6)
        assert seen(raw, prefix) == pool.stats().idle == pool.stats().total == 3
        assert pool.stats().failed_total == 0
        agrees(pool)


async def test_what_is_used_stays_and_what_is_not_used_goes(server: PrivateServer, raw: Raw, prefix: str) -> None:
    async with lending(server.url, max_connections=4, idle_timeout=0.3, client_name=prefix) as pool:
        await give_back(pool, await borrow(pool, 4))

        for _ in range(20):
            await give_back(pool, await borrow(pool, 1))
            await asyncio.sleep(0.04)

        # The one used last is lent first, so the others are free to go.
        assert seen(raw, prefix) == 1


async def test_old_connections_are_replaced_and_not_all_at_once(server: PrivateServer, prefix: str) -> None:
    async with lending(
        server.url, max_connections=20, min_connections=20, max_lifetime=1.0, client_name=prefix
    ) as pool:
        await pool.start()
        expiries = sorted(member.expires - member.opened for member in pool._core.ledger.idle)
        client = redis.asyncio.Redis(connection_pool=pool)

        # 10 % of the lifetime is left to chance.
        assert 0.9 <= expiries[0] < expiries[-1] <= 1.0
        assert len({round(expiry, 4) for expiry in expiries}) > 10
        deadline = time.monotonic() + 1.6
        while time.monotonic() < deadline:
            assert await client.echo("in use all the time")
            assert pool.stats().total + pool.stats().opening <= 20
            await asyncio.sleep(0.01)
        assert pool.stats().closed_total >= 20
        assert pool.stats().failed_total == 0


async def test_a_connection_in_use_outlives_its_lifetime_until_it_is_released(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=1, max_lifetime=0.1) as pool:
        held = await pool.get_connection()
        await asyncio.sleep(0.3)
        assert held.is_connected

        await pool.release(held)
        again = await pool.get_connection()

        assert again is not held
        assert not held.is_connected
        await pool.release(again)


async def test_what_is_held_too_long_is_reported_once_with_its_place(
    server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with lending(server.url, max_connections=2, held_warn=0.1, name="shop") as pool:
        caplog.set_level(logging.WARNING)
        held = await pool.lane("user", owner="mail-3", purpose="export").get_connection()
        await logged(caplog, "connection held too long")
        await asyncio.sleep(0.3)

        (line,) = lines(caplog, "connection held too long")
        assert (line["pool"], line["lane"], line["owner"], line["purpose"]) == ("shop", "user", "mail-3", "export")
        assert line["held_s"] >= 0.1
        assert line["place"].startswith("pool/test_upkeep.py:")
        assert line["place"].endswith("test_what_is_held_too_long_is_reported_once_with_its_place")
        # Never taken back silently.
        assert held.is_connected
        assert pool.stats().active == 1
        await pool.release(held)

        # The next hold of the same connection is reported again.
        again = await pool.get_connection()
        assert again is held
        await logged(caplog, "connection held too long", 2)
        await pool.release(again)


async def test_exhaustion_and_recovery_are_told_once_each_with_their_duration(
    server: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, dict[str, object]]] = []

    def note(event: str, facts: dict[str, object]) -> None:
        told.append((event, facts))

    options: dict[str, Any] = {"exhausted_after": 0.1, "on_event": note, "name": "shop"}
    async with lending(server.url, max_connections=2, **options) as pool:
        caplog.set_level(logging.WARNING)
        # All come while nothing is open yet.
        callers = [asyncio.create_task(pool.get_connection()) for _ in range(5)]
        await logged(caplog, "pool exhausted")
        await asyncio.sleep(0.2)
        for _ in range(3):
            done = [caller for caller in callers if caller.done()]
            callers = [caller for caller in callers if not caller.done()]
            await give_back(pool, [caller.result() for caller in done])
            await asyncio.sleep(0.01)
        await give_back(pool, [await caller for caller in callers])

        (exhausted, facts), (recovered, end) = told
        assert (exhausted, recovered) == ("exhausted", "recovered")
        assert (facts["pool"], facts["lane"], facts["share"], facts["active"]) == ("shop", "user", 2, 2)
        assert facts["waiting"] == 3
        assert 0.2 <= float(str(end["duration"])) < 5.0
        assert len(lines(caplog, "pool exhausted")) == len(lines(caplog, "pool recovered")) == 1


async def test_a_lane_recovers_when_its_last_waiter_gives_up(server: PrivateServer) -> None:
    told: list[str] = []
    options: dict[str, Any] = {"exhausted_after": 0.02, "on_event": lambda event, _: told.append(event)}
    async with lending(server.url, max_connections=1, timeout=5.0, **options) as pool:
        held = await pool.get_connection()
        caller = asyncio.create_task(pool.get_connection())
        await waiting(pool, 1)

        async def exhausted() -> bool:
            return told == ["exhausted"]

        await until(exhausted, "exhaustion is told")
        caller.cancel()
        await asyncio.wait({caller})

        assert told == ["exhausted", "recovered"]
        await pool.release(held)


async def test_a_full_lane_that_moves_on_is_not_exhausted(server: PrivateServer) -> None:
    told: list[str] = []
    options: dict[str, Any] = {"exhausted_after": 1.5, "on_event": lambda event, _: told.append(event)}
    async with lending(server.url, max_connections=2, **options) as pool:

        async def use() -> None:
            for _ in range(20):
                connection = await pool.get_connection()
                await asyncio.sleep(0.01)
                await pool.release(connection)

        began = time.monotonic()
        await asyncio.gather(*(use() for _ in range(20)))

        # It was full for longer than that; nobody waited as long.
        assert time.monotonic() - began > 1.5
        assert told == []


async def test_the_figures_come_as_a_line_each_interval(
    server: PrivateServer, caplog: pytest.LogCaptureFixture, stalls: Stalls
) -> None:
    async with lending(server.url, max_connections=3, stats_interval=0.2, name="shop") as pool:
        caplog.set_level(logging.INFO)
        client = redis.asyncio.Redis(connection_pool=pool)
        await asyncio.gather(*(client.echo("hello") for _ in range(30)))

        await logged(caplog, "pool stats", 3)

        rows = lines(caplog, "pool stats")
        # A line may be late, and the next is on time all the same.
        passed = rows[2]["created"] - rows[0]["created"]
        assert 0.2 - stalls.seconds < passed < 2.0 + stalls.seconds
        row = rows[-1]
        assert (row["pool"], row["minimum"], row["maximum"], row["total"], row["idle"]) == ("shop", 0, 3, 3, 3)
        assert (row["calls"], row["opened"], row["closed"], row["failed"], row["timeouts"]) == (30, 3, 0, 0, 0)
        assert row["waiting_highest"] == 30
        assert 0 < row["wait_p50_ms"] <= row["wait_p95_ms"] <= row["wait_p99_ms"]
        assert 0 < row["response_p50_ms"] <= row["response_p99_ms"]
        assert (row["lanes"], row["errors"]) == ("user:0/3+0", "none")


async def test_the_figures_are_those_of_what_happened(server: PrivateServer, stalls: Stalls) -> None:
    async with lending(server.url, max_connections=4, timeout=0.1, lanes={"jobs": 1, "user": 3}) as pool:
        jobs = pool.lane("jobs")
        await give_back(pool, await borrow(pool, 3))
        held = await jobs.get_connection()
        with pytest.raises(TimeoutError):
            await jobs.get_connection()
        for _ in range(97):
            await give_back(pool, await borrow(pool, 1))
        await asyncio.sleep(0.2)
        await jobs.release(held)

        stats = pool.stats()

        assert (stats.total, stats.active, stats.idle, stats.waiting) == (3, 0, 3, 0)
        assert stats.lanes["jobs"].timeouts_total == stats.timeouts_total == 1
        assert (stats.lanes["jobs"].waiting_highest, stats.lanes["user"].waiting_highest) == (1, 1)
        assert stats.calls_total == stats.response.count == 101
        # 102 asked: most at once, those that opened within moments, and one for as long as its timeout.
        assert stats.wait.count == 102
        assert stats.wait.p50 == 0.0
        assert 0.09 < stats.wait.maximum < 0.5 + stalls.seconds
        assert 0.2 < stats.response.maximum < 1.0 + stalls.seconds
        assert stats.response.p95 < 0.1
        assert stats.errors == {}


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_an_option_outside_its_bounds_is_refused_by_name(name: str) -> None:
    low, high = BOUNDS[name]
    wrong: list[Any] = [low - 1, high + 1, "fast", None, float("nan"), True]
    for value in wrong:
        with pytest.raises(ValueError, match=f"{name}=.*expected a number from"):
            PoolOptions(**{name: value})
    for right in (low, high):
        given: dict[str, Any] = {name: right}
        PoolOptions(**given)


@pytest.mark.parametrize(
    ("options", "interval"),
    [({}, 10.0), ({"idle_timeout": 1.0}, 0.25), ({"held_warn": 0.01}, 0.05), ({"stats_interval": 3.0}, 3.0)],
)
def test_the_upkeep_comes_often_enough_for_what_it_watches(options: dict[str, float], interval: float) -> None:
    assert PoolOptions(**options).upkeep_interval == interval  # type: ignore[arg-type]  # each is a number
