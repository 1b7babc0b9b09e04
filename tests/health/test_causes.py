"""A slow answer is put down to what made it slow: this process's own loop, the network, or the server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from headrace.health.verdict import Status
from tests.live import fresh_app, opened
from tests.support.raw import Raw
from tests.support.sick import Events, busy_server, send, timed, until_status
from tests.support.slow_proxy import SlowProxy

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.stalls import Stalls

#: How long the loop, the network and the server are held up, seconds.
BLOCK = 0.4
DELAY = 0.15
BUSY_MS = 300


async def test_a_blocked_loop_is_told_apart_from_the_server_and_the_network(
    server: PrivateServer, stalls: Stalls
) -> None:
    async def block() -> None:
        for _ in range(6):
            time.sleep(BLOCK)  # noqa: ASYNC251 - that is the fault
            await asyncio.sleep(0.005)

    app = fresh_app(server.url)
    async with opened(app):
        events = Events(app)
        blocking = asyncio.create_task(block())
        await asyncio.sleep(0)
        health = await app.health()
        await blocking

        assert health.loop is Status.DEGRADED
        assert health.reasons[0].startswith("event loop blocked")
        assert health.loop_lag.recent.maximum >= BLOCK * 0.9
        assert health.redis is Status.HEALTHY
        assert health.latency.last is not None
        assert health.latency.last < 0.1 + stalls.seconds
        assert events.seen == []
        # It is over as soon as the loop is on time again.
        await until_status(app, "healthy", loop="healthy")


async def test_a_slow_network_is_told_apart_from_the_server_and_the_loop(
    server: PrivateServer, tmp_path: Path, stalls: Stalls
) -> None:
    with SlowProxy(tmp_path, server.url) as proxy:
        app = fresh_app(proxy.url)
        async with opened(app):
            await timed(app)

            proxy.delay = DELAY
            health = await until_status(app, "degraded", "the network is slow", loop="healthy")
            proxy.delay = 0.0
            delayed = proxy.delayed

            assert delayed > 0
            assert health.latency.network > DELAY
            assert health.latency.server < DELAY / 2 + stalls.seconds


async def test_a_network_that_was_slow_from_the_beginning_is_named_too(server: PrivateServer, tmp_path: Path) -> None:
    with SlowProxy(tmp_path, server.url, delay=DELAY) as proxy:
        app = fresh_app(proxy.url)
        async with opened(app):
            await until_status(app, "degraded", "the network is slow")


async def test_a_slow_server_is_told_apart_from_the_network_and_the_loop(own_server: PrivateServer) -> None:
    app = fresh_app(own_server.url, health_interval=1.0)
    async with opened(app):
        events = Events(app)

        with busy_server(own_server.url, BUSY_MS) as struck:
            await asyncio.to_thread(struck.wait, 10)
            told = await events.until("redis.degraded")
            await until_status(app, "degraded", "the server is slow", loop="healthy")
        after = await timed(app)

        # On a machine that is busy itself it may be told first that the server does not answer.
        assert told["reasons"][0].startswith("the server ")
        (slow,) = [check for check in after.checks if check.name == "slow log"]
        assert (slow.status, "EVAL" in slow.measured) == ("warn", True)


async def test_a_user_who_may_not_see_info_gets_what_can_be_told(own_server: PrivateServer, tmp_path: Path) -> None:
    send(own_server.url, "ACL", "SETUSER", "plain", "on", ">word", "~*", "&*", "+@all", "-info", "-config", "-slowlog")
    with SlowProxy(tmp_path, own_server.url) as proxy:
        app = fresh_app(proxy.url.replace("unix://", "unix://plain:word@"))
        async with opened(app):
            health = await timed(app)
            with Raw(own_server.url) as raw:
                before = raw("INFO", "commandstats").count(b"cmdstat_ping")
            proxy.delay = DELAY
            await until_status(app, "degraded", "cannot be told apart")
            proxy.delay = 0.0

            assert (health.redis, health.status) == (Status.HEALTHY, Status.HEALTHY)
            unknown = {check.name for check in health.checks if check.status == "unknown"}
            assert unknown == {check.name for check in health.checks}
            assert before == 1
