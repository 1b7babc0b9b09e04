"""Changes of the server and of the pool are told on the app's bus, once each, with how long they lasted."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import redis.asyncio

from headrace.health.verdict import Status
from tests.live import fresh_app, opened
from tests.support.sick import Events, timed

if TYPE_CHECKING:
    from headrace.server import PrivateServer


async def test_a_lane_without_connections_is_told_and_so_is_its_end(server: PrivateServer) -> None:
    app = fresh_app(server.url, redis_max_connections=8, redis_acquire_timeout=30.0)
    async with opened(app):
        events = Events(app)
        client = redis.asyncio.Redis(connection_pool=app.pool)
        share = app.pool.stats().lanes["user"].share
        held = asyncio.gather(*(client.blpop(["nothing"], timeout=4) for _ in range(share + 1)))

        exhausted = await events.until("pool.exhausted")
        meanwhile = await timed(app)
        await held
        recovered = await events.until("pool.recovered")
        after = await timed(app)

        assert exhausted["lane"] == "user"
        assert (meanwhile.status, meanwhile.redis) == (Status.DEGRADED, Status.HEALTHY)
        assert any(reason.startswith("the pool is exhausted: lane 'user'") for reason in meanwhile.reasons)
        assert meanwhile.pool["lanes"]["user"]["waiting"] >= 1
        assert recovered["lane"] == "user"
        assert recovered["duration"] > 0
        assert not any("exhausted" in reason for reason in after.reasons)


async def test_a_change_is_told_once_and_its_end_with_the_time_since_the_first_sign(own_server: PrivateServer) -> None:
    app = fresh_app(own_server.url)
    async with opened(app):
        events = Events(app)
        loop = asyncio.get_running_loop()

        began = loop.time()
        os.kill(own_server.pid, signal.SIGSTOP)
        for _ in range(2):
            assert (await timed(app)).redis == "unhealthy"
        lasted = loop.time() - began
        os.kill(own_server.pid, signal.SIGCONT)
        recovered = await events.until("redis.recovered")

        (degraded,) = events.named("redis.degraded")
        assert degraded["status"] == "unhealthy"
        for told in (degraded, recovered):
            assert told["reasons"][0].startswith("the server does not answer")
        assert degraded["remedies"]
        assert lasted * 0.4 < recovered["duration"] < loop.time() - began


async def test_a_probe_is_due_only_where_no_other_call_told_the_latency(server: PrivateServer) -> None:
    app = fresh_app(server.url, health_interval=1.0)
    async with opened(app):
        monitor = app._open_session.monitor
        monitor._facts_at = app.clock.now()
        due = monitor._alarm.when

        await app.queue("mail").stats()
        await app.store.survey(app.control, ["mail"])

        assert due is not None
        assert monitor._alarm.when is not None
        assert monitor._alarm.when > due
