"""A duty of the clock that is slow, or hangs, cannot delay the renewal of leases; one that blocks too long is named."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from headrace.worker.waking import BLOCK
from tests.live import DEADLINE, fresh_app, opened, working
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from headrace import Headrace
    from headrace.server import PrivateServer
    from tests.support.stalls import Stalls

#: Short, and longer than a machine that others use stands still at a time, seconds; it is renewed each third.
LEASE = 2.0


@pytest.fixture
async def app(server: PrivateServer) -> AsyncIterator[Headrace]:
    async with opened(fresh_app(server.url, lease=LEASE, keep_result=60)) as app:
        yield app


@pytest.mark.parametrize("kind", ["blocks under the lease", "never ends"])
async def test_a_slow_duty_costs_no_lease(
    app: Headrace, caplog: pytest.LogCaptureFixture, stalls: Stalls, kind: str
) -> None:
    runs: list[int] = []
    block = 0.4 * LEASE

    @app.task(name="long")
    async def long() -> str:
        runs.append(1)
        await asyncio.sleep(2.5 * LEASE)
        return "done"

    def slow() -> object:
        if kind == "never ends":
            return asyncio.Event().wait()
        time.sleep(block)
        return None

    async with working(app) as worker:
        duty = app.clock.every("slow", LEASE * 2 / 3, slow, owner="test")
        job = await long.enqueue()
        assert await job.result(timeout=DEADLINE) == "done"
        renewal = next(stats for stats in app.clock.stats() if stats.name == "renew leases")
        duty.close()
        if duty.task is not None:
            duty.task.cancel()

    assert duty.runs >= (1 if kind == "never ends" else 2)
    assert len(runs) == 1
    assert not worker.signals.lease_lost.is_set()
    assert renewal.urgent
    assert renewal.runs >= 2
    assert renewal.late_maximum < block + 0.2 + stalls.seconds
    warned = {vars(record)["duty"] for record in caplog.records if record.getMessage().startswith("clock duty")}
    assert warned == {"slow"}


async def test_a_duty_that_blocks_beyond_the_lease_is_named_and_its_jobs_run_again(
    app: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[asyncio.Event] = []
    entered = asyncio.Event()

    @app.task(name="long")
    async def long() -> str:
        runs.append(asyncio.Event())
        entered.set()
        if len(runs) == 1:
            # It holds on until its lease is lost.
            await runs[0].wait()
        return "done"

    async with working(app) as worker:
        job = await long.enqueue()
        await asyncio.wait_for(entered.wait(), DEADLINE)
        blocking = app.clock.alarm("count the stars", lambda: time.sleep(1.5 * LEASE), owner="test")
        blocking.set(app.clock.now())
        assert await job.result(timeout=DEADLINE) == "done"

    assert blocking.runs == 1
    assert worker.signals.lease_lost.is_set()
    assert len(runs) == 2
    named = [vars(record) for record in caplog.records if record.getMessage().startswith("clock duty blocked")]
    assert [(record["duty"], record["owner"]) for record in named] == [("count the stars", "test")]
    assert named[0]["took_ms"] >= 1_500 * LEASE
    assert "lease lost" in [record.getMessage() for record in caplog.records]


@pytest.mark.slow
async def test_a_half_open_connection_keeps_no_lease_from_its_renewal(
    server: PrivateServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lease = 1.5 * LEASE
    with FaultProxy(tmp_path, server.url) as proxy:
        async with opened(fresh_app(proxy.url, lease=lease, health_interval=600.0)) as app:
            runs: list[int] = []
            entered, ended = asyncio.Event(), asyncio.Event()

            @app.task(name="long")
            async def long() -> None:
                runs.append(1)
                entered.set()
                await asyncio.sleep(2 * lease)
                ended.set()

            async with working(app) as worker:
                await long.enqueue()
                await asyncio.wait_for(entered.wait(), DEADLINE)
                # What was opened before is never answered again, and nothing tells so.
                proxy.deafen()
                await asyncio.wait_for(ended.wait(), DEADLINE)

    assert len(runs) == 1
    assert not worker.signals.lease_lost.is_set()
    assert "leases could not be renewed; it is tried again" in [record.getMessage() for record in caplog.records]


@pytest.mark.slow
async def test_a_worker_whose_connections_have_all_gone_deaf_hears_of_new_jobs_long_before_its_call_ends(
    server: PrivateServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The probe asks at once, and gives up soon; a call that blocks would go on for half a minute.
    monkeypatch.setattr("headrace.health.monitor.ASK_TIMEOUT", 1.5)
    with FaultProxy(tmp_path, server.url) as proxy:
        app = fresh_app(proxy.url, health_interval=1.0)
        # Another process, whose connections are sound.
        beside = fresh_app(server.url, prefix=app.settings.prefix)
        done = asyncio.Event()

        async def ring() -> None:
            done.set()

        app.task(name="ring")(ring)
        enqueued = beside.task(name="ring")(ring)
        async with opened(app), opened(beside), working(app) as worker:
            proxy.deafen()
            await enqueued.enqueue()
            await asyncio.wait_for(done.wait(), BLOCK / 2)

    assert worker.stats().completed == 1
    dropped = [vars(record) for record in caplog.records if record.getMessage().startswith("connections that nobody")]
    assert dropped[0]["connections"] >= 1

    # Red when: Pool does not hand its links the watch for deaf ones.
