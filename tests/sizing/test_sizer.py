"""A pool that sizes itself, on a real server: it fits or is refused, keeps its places, and follows a real load."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio

from headrace.census import Census
from headrace.clock import Clock
from headrace.errors import SettingError
from headrace.keys import budget_key
from headrace.pool.client_pool import ConnectionPool
from headrace.pool.lanes import app_shares
from headrace.settings import Settings
from headrace.settings_auto import FIRST_MAXIMUM, first_maximum
from headrace.sizing.auto import AutoOptions
from headrace.sizing.sizer import Sizer
from headrace.store.store import Store
from tests.live import DEADLINE, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from tests.support.raw import Raw

QUICK = AutoOptions(interval=0.1, target_wait=0.010, calm_windows=5, step=2, hold=0.5)


class Process:
    """A pool with its sizer, as an app has them, beside the others of one fleet in this process."""

    def __init__(self, app: Headrace, name: str, *, options: AutoOptions = QUICK, **settings: Any) -> None:
        self.settings = Settings(prefix=f"{app.settings.prefix}-fleet", sources=sources(settings), **settings)
        self.census = Census()
        self.clock = Clock(self.census)
        maximum = first_maximum(self.settings.redis_max_connections, self.settings.redis_min_connections)
        self.pool = ConnectionPool.from_url(
            app.settings.redis_url or "",
            max_connections=maximum,
            lanes=app_shares(maximum),
            census=self.census,
            clock=self.clock,
            client_name=f"headrace:fleet:{name}:user:lent",
            timeout=30.0,
        )
        self.client = redis.asyncio.Redis(connection_pool=self.pool)
        self.sizer = Sizer(
            self.pool, Store(self.settings.prefix, where="here"), app.control, self.clock,
            self.settings, "x", options=options, place=f"fleet:{name}",
        )  # fmt: skip

    async def start(self) -> Process:
        self.clock.start()
        # An app has a connection of its own before it asks for places.
        await self.client.ping()
        await self.sizer.start()
        return self

    async def close(self) -> None:
        await self.sizer.close()
        await self.clock.close()
        await self.pool.aclose()
        assert self.census.is_empty()


def sources(settings: dict[str, Any]) -> dict[str, Any]:
    """What a test names counts as set in the environment."""
    return dict.fromkeys(settings, "environment")


@pytest.fixture
async def app(make_app: Callable[..., Headrace], raw: Raw, prefix: str) -> AsyncIterator[Headrace]:
    async with make_app() as app:
        yield app
    assert raw("EXISTS", budget_key(f"{prefix}-fleet")) == 0


@contextlib.asynccontextmanager
async def processes(app: Headrace, *names: str, **settings: Any) -> AsyncIterator[list[Process]]:
    """Start processes one after the other, and close them at the end."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in names:
            process = Process(app, name, **settings)
            stack.push_async_callback(process.close)
            made.append(await process.start())
        yield made


@contextlib.contextmanager
def maxclients(raw: Raw, limit: int) -> Any:
    """Let the server accept only so many clients for a while."""
    before = int(raw("CONFIG", "GET", "maxclients")[b"maxclients"])
    raw("CONFIG", "SET", "maxclients", limit)
    try:
        yield
    finally:
        raw("CONFIG", "SET", "maxclients", before)


@contextlib.asynccontextmanager
async def load(process: Process, users: int, *, hold: float = 0.05) -> AsyncIterator[None]:
    """Let users call without a pause; each call holds its connection for some time on the server."""

    stopped = False

    async def call() -> None:
        while not stopped:
            await process.client.blpop("nothing", hold)

    tasks = [asyncio.create_task(call()) for _ in range(users)]
    try:
        yield
    finally:
        stopped = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
