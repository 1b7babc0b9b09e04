"""Health is told within about a second, and truly, while the server is away, stopped, paused, loading, a replica, out
of memory, at maxclients or failing over; and it is told that it is over."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from headrace.server import start_private_server
from tests.live import fresh_app, hold_replies, opened, until, working
from tests.support.raw import Raw
from tests.support.sick import Events, fill_up_clients, send, timed, until_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.stalls import Stalls

QUIET = ("--appendonly", "no", "--save", "", "--repl-diskless-sync-delay", "0")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server of the test alone, since the test harms it."""
    with start_private_server(tmp_path / "own", extra=QUIET) as running:
        yield running


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[PrivateServer]:
    """A second server, to be made a replica of a first one."""
    with start_private_server(tmp_path / "replica", port=0, extra=QUIET) as running:
        yield running


async def test_a_server_that_is_away(own: PrivateServer) -> None:
    app = fresh_app(own.url)
    async with opened(app):
        events = Events(app)
        assert (await timed(app)).redis == "healthy"

        await asyncio.to_thread(own.kill)
        told = await events.until("redis.degraded")
        away = await timed(app)
        await asyncio.to_thread(own.start)
        over = await events.until("redis.recovered")

        assert (away.status, away.redis) == ("unhealthy", "unhealthy")
        assert "cannot be reached" in away.reasons[0]
        assert "REDIS_URL" in away.remedies[0]
        assert (told["status"], told["previous"]) == ("unhealthy", "healthy")
        assert 0 < over["duration"] < 30
        assert (await timed(app)).redis == "healthy"
        assert (len(events.named("redis.degraded")), len(events.named("redis.recovered"))) == (1, 1)

    # Red when: a call of health waits for the connection itself, for as long as the link tries to open it.


async def test_a_server_process_that_is_stopped(own: PrivateServer) -> None:
    app = fresh_app(own.url)
    async with opened(app):
        events = Events(app)

        os.kill(own.pid, signal.SIGSTOP)
        try:
            stopped = await timed(app)
            control = app.control.opened_total
        finally:
            os.kill(own.pid, signal.SIGCONT)
        over = await events.until("redis.recovered")

        assert stopped.redis == "unhealthy"
        assert "does not answer" in stopped.reasons[0]
        assert over["duration"] > 0
        # The probe has not harmed the connection on which leases are renewed.
        assert app.control.opened_total == control

    # Red when: the probe gives its question up after a second, which drops the control connection.


@pytest.mark.parametrize(("mode", "reason"), [("WRITE", "paused its clients"), ("ALL", "does not answer")])
async def test_a_server_that_has_paused_its_clients(own: PrivateServer, mode: str, reason: str) -> None:
    app = fresh_app(own.url)
    async with opened(app):
        events = Events(app)

        with Raw(own.url) as raw:
            if mode == "WRITE" and b"paused_actions" not in raw("INFO", "clients"):
                pytest.skip("this server does not say what it has paused")
            raw("CLIENT", "PAUSE", 3_000, mode)
        paused = await timed(app)
        if mode == "WRITE":
            # While all is paused, the server takes no word that ends it.
            send(own.url, "CLIENT", "UNPAUSE")
        await events.until("redis.recovered")

        assert paused.redis == "unhealthy"
        assert reason in paused.reasons[0]

    # Red when: the probe is a PING, which a server answers while it holds all writes back.


async def test_a_server_that_loads_its_data(own: PrivateServer) -> None:
    with Raw(own.url) as raw:
        raw.many([("SET", f"key-{number}", "x") for number in range(400)])
    send(own.url, "SAVE")
    app = fresh_app(own.url)
    async with opened(app):
        events = Events(app)

        own.extra = (*QUIET, "--key-load-delay", "2500", "--loading-process-events-interval-bytes", "1024")
        await asyncio.to_thread(own.kill)
        starting = asyncio.create_task(asyncio.to_thread(own.start))
        async with asyncio.timeout(10):
            while "loading" not in (loading := await timed(app)).reasons[0]:
                assert not starting.done(), loading.reasons
        await starting
        await events.until("redis.recovered")

        assert loading.redis == "unhealthy"
        assert "LOADING" in loading.reasons[0]
        assert "Wait" in loading.remedies[0]

    # Red when: a link forgets what the server answered when it was opened.


async def test_a_read_only_replica(own: PrivateServer, replica: PrivateServer) -> None:
    app = fresh_app(own.url)
    async with opened(app):
        events = Events(app)

        with Raw(own.url) as raw:
            send(own.url, "REPLICAOF", "127.0.0.1", str(replica.port))
            follows = await until_status(app, "unhealthy")
            await asyncio.to_thread(replica.kill)

            async def alone() -> bool:
                return b"master_link_status:down" in raw("INFO", "replication")

            await until(alone, "the replica sees that its primary is gone")
            lost = await timed(app)
            send(own.url, "REPLICAOF", "NO", "ONE")
        await events.until("redis.recovered")

        assert "read-only replica" in follows.reasons[0]
        assert "lost its primary" in lost.reasons[0]

    # Red when: only the time of an answer is looked at, and a replica answers fast.


async def test_a_server_that_is_out_of_memory(own: PrivateServer) -> None:
    app = fresh_app(own.url)
    async with opened(app):
        events = Events(app)

        send(own.url, "CONFIG", "SET", "maxmemory", "1000000")
        with pytest.raises(AssertionError, match="OOM"):
            send(own.url, "SET", "more", "x" * 1_000_000)
        full = await timed(app)
        send(own.url, "CONFIG", "SET", "maxmemory", "0")
        await events.until("redis.recovered")

        assert full.redis == "unhealthy"
        assert "out of memory and refuses writes" in full.reasons[0]
        assert "maxmemory" in full.remedies[0]

    # Red when: only the time of an answer is looked at, and a full server answers fast.


async def test_a_server_at_maxclients(own: PrivateServer) -> None:
    app = fresh_app(own.url)
    async with opened(app):
        events = Events(app)
        await timed(app)

        with Raw(own.url) as raw:
            raw("CONFIG", "SET", "maxclients", 10)
            held = fill_up_clients(own.url)
            full = await timed(app)
            (control,) = [line for line in raw("CLIENT", "LIST").split(b"\n") if b":control:" in line]
            raw("CLIENT", "KILL", "ID", control.split()[0].removeprefix(b"id="))
            held += fill_up_clients(own.url)
            out = await until_status(app, "unhealthy")
            for client in held:
                client.close()
        await events.until("redis.recovered")

        assert full.redis == "degraded"
        assert "at maxclients" in full.reasons[0]
        assert "refuses new connections" in out.reasons[0]

    # Red when: a connection that is open already is all that is looked at.


async def test_a_server_that_fails_over(replica: PrivateServer, tmp_path: Path) -> None:
    with start_private_server(tmp_path / "first", port=0, extra=QUIET) as first, Raw(first.url) as raw:
        app = fresh_app(first.url, health_interval=1.0)
        async with opened(app):
            events = Events(app)
            send(replica.url, "REPLICAOF", "127.0.0.1", str(first.port))

            async def follows() -> bool:
                return b"state=online" in raw("INFO", "replication")

            await until(follows, "the replica is online")
            os.kill(replica.pid, signal.SIGSTOP)
            try:
                raw("SET", "a", "b")
                send(first.url, "FAILOVER")
                during = await timed(app)
            finally:
                os.kill(replica.pid, signal.SIGCONT)
            async with asyncio.timeout(10):
                while not (after := await timed(app)).reasons[0].startswith("the server is a read-only replica"):
                    assert after.redis == "unhealthy"
            send(first.url, "REPLICAOF", "NO", "ONE")
            await events.until("redis.recovered")

            assert during.redis == "unhealthy"
            assert "failing over" in during.reasons[0]

    # Red when: the role alone is looked at, which changes only at the end of a failover.


async def test_a_jobs_lane_that_hangs_does_not_hold_up_health(server: PrivateServer, stalls: Stalls) -> None:
    app = fresh_app(server.url)

    @app.task
    async def work() -> None: ...

    async with opened(app), working(app, ["default"]) as worker:
        arrived, let_go = hold_replies(worker)
        await work.enqueue()
        async with asyncio.timeout(10):
            await arrived.wait()

        began = time.monotonic()
        health = await timed(app)
        took = stalls.lasted(began)
        let_go.set()

        assert health.redis == "healthy"
        assert took < 0.5

    # Red when: the probe travels on the link of the jobs lane.
