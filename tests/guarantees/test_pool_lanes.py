"""Waiters are served first-in first-out, no lane waits for another, and an error says who holds the connections."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import TYPE_CHECKING

import pytest
import redis.asyncio

from headrace.errors import PoolTimeout
from tests.support.pools import borrow, give_back, lending, seen, waiting

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.support.raw import Raw
    from tests.support.stalls import Stalls

SHARES = {"control": 1, "blocking": 2, "jobs": 5, "user": 12}


async def test_300_users_share_20_connections_and_none_waits_much_longer_than_another(
    server: PrivateServer, raw: Raw, prefix: str, stalls: Stalls
) -> None:
    times: list[tuple[float, float]] = []
    order: list[int] = []
    most = 0
    async with lending(server.url, max_connections=20, client_name=prefix) as pool:
        held = await borrow(pool, 20)

        async def use(number: int) -> None:
            began = time.monotonic()
            connection = await pool.get_connection()
            times.append((began, time.monotonic()))
            order.append(number)
            await asyncio.sleep(0.005)
            await pool.release(connection)

        users = [asyncio.create_task(use(number)) for number in range(300)]
        await waiting(pool, 300)
        most = seen(raw, prefix)
        await give_back(pool, held)
        while not all(user.done() for user in users):
            await asyncio.sleep(0.01)
            most = max(most, seen(raw, prefix), pool.stats().total + pool.stats().opening)

        assert pool.stats().waiting_highest == 300

    assert most == 20
    assert order == list(range(300))
    # All came at once, so the last waits twice as long as the one in the middle, and no longer.
    waits = [stalls.lasted(*each) for each in times]
    assert max(waits) <= 2.5 * median(waits)

    # Red when: ledger.py serves whoever comes while others wait.


async def test_a_full_jobs_lane_does_not_delay_control_by_more_than_one_round_trip(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=20, lanes=SHARES, timeout=30.0) as pool:
        control = redis.asyncio.Redis(connection_pool=pool.lane("control"))
        jobs = pool.lane("jobs")
        await control.ping()

        async def probe() -> list[float]:
            took = []
            for _ in range(200):
                began = time.perf_counter()
                await control.ping()
                took.append(time.perf_counter() - began)
            return sorted(took)

        unloaded = await probe()
        held = await borrow(jobs, SHARES["jobs"])
        callers = [asyncio.create_task(jobs.get_connection()) for _ in range(282)]
        await waiting(pool, 282, "jobs")
        loaded = await probe()

        stats = pool.stats().lanes
        assert (stats["jobs"].active, stats["jobs"].waiting) == (5, 282)
        # The one who waited waited for the opening, at the start.
        assert (stats["control"].waiting_highest, stats["control"].timeouts_total) == (1, 0)
        # One round trip more at most, by those that had the machine for themselves, with half a millisecond to spare.
        assert loaded[20] <= 2 * unloaded[20] + 0.0005
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await give_back(pool, held)

    # Red when: ledger.py lets a lane use more than its share, or makes a lane wait behind another.


async def test_a_lane_that_was_never_used_is_served_at_once_when_all_others_are_full(
    server: PrivateServer, stalls: Stalls
) -> None:
    async with lending(server.url, max_connections=20, lanes=SHARES, timeout=30.0) as pool:
        views = {name: pool.lane(name) for name in ("blocking", "jobs", "user")}
        held = [await view.get_connection() for name, view in views.items() for _ in range(SHARES[name])]
        callers = [asyncio.create_task(view.get_connection()) for view in views.values() for _ in range(50)]
        await waiting(pool, 150)
        began = time.monotonic()

        await pool.lane("control").release(await pool.lane("control").get_connection())

        assert stalls.lasted(began) < 0.2
        assert pool.stats().total == 20
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        await give_back(pool, held)

    # Red when: lanes.py gives out more shares than the maximum, or ledger.py lends a lane's share to another.


async def test_the_error_of_a_full_lane_names_its_own_holders_and_how_long_they_have_held(
    server: PrivateServer,
) -> None:
    async with lending(server.url, max_connections=20, lanes=SHARES, timeout=0.05) as pool:
        jobs = pool.lane("jobs", owner="mail-3", purpose="reserve")
        other = await pool.lane("user", owner="someone-else").get_connection()
        held = await borrow(jobs, SHARES["jobs"])
        await asyncio.sleep(0.12)

        with pytest.raises(PoolTimeout) as caught:
            await jobs.get_connection()

        text = str(caught.value)
        assert "lane 'jobs' gave no connection within 0.05" in text
        assert "5 of 5 in use, 0 waiting ahead, longest held 0." in text
        assert "by 'mail-3' (reserve) at support/pools.py:" in text
        assert "someone-else" not in text
        assert [round(getattr(holder, "held", 0.0), 1) >= 0.1 for holder in caught.value.holders] == [True] * 5
        await give_back(pool, [other, *held])

    # Red when: client_errors.py or waits.py leaves the holders out.
