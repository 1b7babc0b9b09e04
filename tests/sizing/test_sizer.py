"""A pool that sizes itself, on a real server: it fits or is refused, keeps its places, and follows a real load."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest

from headrace.errors import SettingError
from headrace.keys import budget_key
from headrace.settings_auto import FIRST_MAXIMUM
from tests.live import DEADLINE, until
from tests.sizing.fleet import QUICK, Process, load, maxclients, processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from tests.support.raw import Raw


@pytest.fixture
async def app(make_app: Callable[..., Headrace], raw: Raw, prefix: str) -> AsyncIterator[Headrace]:
    async with make_app() as app:
        yield app
    assert raw("EXISTS", budget_key(f"{prefix}-fleet")) == 0


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == message]


async def test_the_first_log_line_says_what_there_is_and_why(app: Headrace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headrace")

    async with processes(app, "1", redis_max_connections=50):
        pass

    (record,) = told(caplog, "pool size")
    found = vars(record)
    assert (found["maximum"], found["maximum_source"], found["minimum"], found["minimum_source"]) == (
        50, "environment", 20, "default",
    )  # fmt: skip
    assert (found["processes"], found["fleet_maximum"], found["verdict"]) == (1, 50, "fits")
    assert found["maxclients"] > found["clients"] >= 1
    assert "need" in found["why"]
    rows = {vars(row)["consumer"]: vars(row)["here"] for row in told(caplog, "pool demand")}
    assert list(rows) == ["worker control", "blocking", "jobs", "dashboard", "telemetry", "user"]


async def test_a_maximum_that_does_not_fit_is_refused_with_the_figures(app: Headrace, raw: Raw) -> None:
    with maxclients(raw, 120):
        async with processes(app, "1", redis_max_connections=80):
            with pytest.raises(SettingError) as caught:
                async with processes(app, "2", redis_max_connections=80):
                    pass

    text = str(caught.value)
    assert text.startswith("REDIS_MAX_CONNECTIONS=80: the fleet cannot fit. The server accepts 120 clients; ")
    assert "the others of the fleet (1) may open 80" in text
    assert "Lower it to at most " in text
    assert (caught.value.variable, caught.value.source) == ("REDIS_MAX_CONNECTIONS", "environment")


async def test_the_default_maximum_is_lowered_to_what_is_left(app: Headrace, raw: Raw) -> None:
    with maxclients(raw, 120):
        async with processes(app, "1", redis_max_connections=80), processes(app, "2") as (second,):
            stats = second.pool.stats()

    assert 20 <= stats.maximum < 40
    assert sum(lane.share for lane in stats.lanes.values()) == stats.maximum


async def test_the_least_that_an_app_needs_is_never_refused(app: Headrace, raw: Raw) -> None:
    with maxclients(raw, 60):
        async with (
            processes(app, "1", redis_max_connections=40),
            processes(app, "2", redis_max_connections=4) as (second,),
        ):
            assert second.pool.stats().maximum == 4


async def test_places_of_a_process_that_ended_without_a_word_are_taken_back_at_the_next_start(
    app: Headrace, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    async with processes(app, "1", redis_max_connections=80) as (first,):
        raw("HSET", budget_key(first.settings.prefix), "fleet:999:x", "9999999999999 80 {}")
        raw("HSET", budget_key(first.settings.prefix), "*", "160 1")

        with maxclients(raw, 180):
            async with processes(app, "2", redis_max_connections=80) as (second,):
                assert second.pool.stats().maximum == 80

    assert told(caplog, "places of lost processes taken back")
    # Red when: find_ghosts names nobody.


@pytest.mark.parametrize("users", [50, pytest.param(200, marks=pytest.mark.slow)])
async def test_auto_grows_until_waits_are_below_the_target_and_shrinks_when_it_is_calm(
    app: Headrace, users: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headrace")
    async with processes(app, "1", redis_max_connections="auto", redis_min_connections=0) as (process,):
        stats = process.pool.stats
        assert stats().maximum == FIRST_MAXIMUM

        async with load(process, users):
            await asyncio.wait_for(until(lambda: waits_are_short(process, users), "waits are short"), DEADLINE)
            grown = stats().maximum
            highest = await highest_maximum(process, 10 * QUICK.interval)
        await asyncio.wait_for(until(lambda: is_small(process), "the pool is small again"), DEADLINE)

    assert 0.8 * users <= grown <= highest <= 1.3 * users + FIRST_MAXIMUM
    lines = [vars(record) for record in told(caplog, "pool resized")]
    assert all(line["reason"] for line in lines)
    assert [line["to"] > line["from"] for line in lines] == sorted(
        (line["to"] > line["from"] for line in lines), reverse=True
    )
    assert lines[0]["waiting"] > 0


async def waits_are_short(process: Process, users: int) -> bool:
    """Whether all users are there, and who calls now waits for less than the target, by what the figures say."""
    stats = process.pool.stats()
    expected = stats.waiting * stats.response.mean / max(1, stats.active)
    return stats.active >= 0.8 * users and expected <= QUICK.target_wait


async def is_small(process: Process) -> bool:
    return process.pool.stats().maximum <= FIRST_MAXIMUM


async def highest_maximum(process: Process, seconds: float) -> int:
    """Watch the pool for some time."""
    end, highest = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        highest = max(highest, process.pool.stats().maximum)
        await asyncio.sleep(0.02)
    return highest


async def test_a_maximum_that_is_changed_while_the_app_runs_is_taken_with_its_places(app: Headrace, raw: Raw) -> None:
    async with processes(app, "1", redis_max_connections=40) as (process,):
        before, after = process.settings, process.settings.override({"redis_max_connections": 60})

        notes = await process.sizer.retune(before, after)

        assert notes == ()
        assert process.pool.stats().maximum == 60
        assert raw("HGET", budget_key(before.prefix), "*").startswith(b"60 ")


async def test_a_change_that_does_not_fit_is_taken_as_far_as_it_goes_and_said(app: Headrace, raw: Raw) -> None:
    async with processes(app, "1", redis_max_connections=40) as (process,):
        with maxclients(raw, 64):
            after = process.settings.override({"redis_max_connections": 200})
            notes = await process.sizer.retune(process.settings, after)

        maximum = process.pool.stats().maximum
    assert 40 < maximum <= 60
    assert notes == (f"REDIS_MAX_CONNECTIONS (the fleet leaves {maximum} places)",)


async def test_a_change_to_auto_and_back_begins_and_ends_to_follow_the_load(app: Headrace) -> None:
    async with processes(app, "1", redis_max_connections=30, redis_min_connections=0) as (process,):
        fixed, auto = process.settings, process.settings.override({"redis_max_connections": "auto"})

        await process.sizer.retune(fixed, auto)
        async with load(process, 60):
            await asyncio.wait_for(until(lambda: waits_are_short(process, 60), "waits are short"), DEADLINE)
            grown = process.pool.stats().maximum
        await process.sizer.retune(auto, fixed)
        await asyncio.sleep(5 * QUICK.interval)

        assert grown > 50
        assert process.pool.stats().maximum == 30


async def test_a_process_whose_lease_ran_out_comes_back_with_what_is_left(
    app: Headrace, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headrace")
    with maxclients(raw, 60):
        async with processes(app, "1", redis_max_connections="auto", redis_min_connections=0) as (process,):
            maximum = process.pool.stats().maximum
            # As if its lease had run out while the process was stopped, and another had taken what came free.
            raw("DEL", budget_key(process.settings.prefix))
            async with processes(app, "2", redis_max_connections=38, redis_min_connections=0):
                await process.sizer.renew()
                left = process.pool.stats().maximum

    assert 4 <= left < maximum
    lines = [vars(record) for record in told(caplog, "pool resized")]
    assert (lines[0]["from"], lines[0]["to"], lines[0]["reason"]) == (maximum, left, "the fleet leaves no more places")


async def test_a_default_maximum_that_was_lowered_grows_when_places_come_free(app: Headrace, raw: Raw) -> None:
    with maxclients(raw, 120):
        async with processes(app, "1", redis_max_connections=80) as (first,), processes(app, "2") as (second,):
            lowered = second.pool.stats().maximum
            await first.sizer.close()

            await second.sizer.renew()

            assert lowered < 40
            assert second.pool.stats().maximum == 100


async def test_a_pool_that_may_not_grow_says_so_and_asks_again_later(
    app: Headrace, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    with maxclients(raw, 60):
        async with (
            processes(app, "1", redis_max_connections=30, redis_min_connections=0),
            processes(app, "2", redis_max_connections="auto", redis_min_connections=0) as (process,),
        ):
            async with load(process, 40):
                await asyncio.wait_for(until(lambda: is_told(caplog), "it says that it cannot grow"), DEADLINE)
                await asyncio.sleep(5 * QUICK.interval)
            maximum = process.pool.stats().maximum

    assert maximum <= 0.8 * 60 - 30 + 4
    assert len(told(caplog, "pool cannot grow")) == 1


async def is_told(caplog: pytest.LogCaptureFixture) -> bool:
    return bool(told(caplog, "pool cannot grow"))
