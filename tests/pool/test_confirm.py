"""An enqueue that waits for replicas returns once they have the job, and not before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace
from headrace.errors import CommandRefused, ConnectionLost, SettingError
from headrace.pool.address import Address, parse_address
from headrace.pool.confirm import Confirm, confirm_by
from headrace.pool.connection import ServerReplyError
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command
from tests.support.sentinel import SentinelGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 15.0


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path_factory.mktemp("confirm"), down_after_ms=30_000) as group:
        yield group


@contextlib.contextmanager
def stopped_replicas(group: SentinelGroup) -> Iterator[None]:
    """Keep the replicas from taking what the primary sends them."""
    replicas = [server for number, server in enumerate(group.servers) if number != group.primary()]
    for server in replicas:
        os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for server in replicas:
            os.kill(server.pid, signal.SIGCONT)


async def test_an_enqueue_returns_once_the_replicas_have_the_job(group: SentinelGroup) -> None:
    app = Headrace(group.url, settings={"prefix": "confirm-later", "wait_replicas": 2})

    @app.task
    async def work() -> None: ...

    async with app:
        await work.enqueue()
        with stopped_replicas(group):
            call = asyncio.create_task(work.enqueue())
            done, _ = await asyncio.wait({call}, timeout=0.3)
            accepted = (await app.queue("default").stats()).waiting
        await asyncio.wait_for(call, DEADLINE)

        stats = await app.queue("default").stats()
    assert (done, accepted, stats.waiting) == (set(), 2, 2)


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_enqueue_that_replicas_do_not_confirm_says_so_and_is_accepted_once(
    group: SentinelGroup, kind: str
) -> None:
    app = Headrace(group.url, settings={"prefix": f"confirm-{kind}", "wait_replicas": 2, "redis_acquire_timeout": 3.0})

    @app.task
    async def work() -> None: ...

    async with app:
        with stopped_replicas(group), pytest.raises(ConnectionLost, match="only 0 of 2 replicas confirmed"):
            await (work.enqueue() if kind == "async" else asyncio.to_thread(work.enqueue_sync))

        stats = await app.queue("default").stats()
    assert stats.waiting == 1


async def test_replicas_that_did_not_confirm_are_named_although_the_last_attempt_got_no_answer() -> None:
    answers: list[Any] = [[b"OK", 0, 0], ConnectionLost("no answer"), [b"OK", 0, 2]]

    class Way:
        async def roundtrip(self, *_: Any, **__: Any) -> list[Any]:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return list(answer)

    trip = Confirm(2, channel="confirm:nobody", where="server").over(Way())

    for cause in (None, "no answer"):
        with pytest.raises(ConnectionLost, match="only 0 of 2 replicas confirmed") as caught:
            await trip.roundtrip(b"", 1)
        assert (caught.value.__cause__ and str(caught.value.__cause__)) == cause
    assert await trip.roundtrip(b"", 1) == [b"OK"]

    # Red when: confirm.py forgets what the replicas did as soon as the link is slow.


def test_what_an_earlier_connection_wrote_is_not_taken_for_confirmed(group: SentinelGroup) -> None:
    address = Address(port=group.servers[group.primary()].port or 0)
    writer, later = SyncLink(address, name="writer"), SyncLink(address, name="later")
    confirm = Confirm(1, channel="confirm:nobody", where="server")
    ping = pack_command("PING")

    with stopped_replicas(group):
        writer.roundtrip(pack_command("SET", "confirm", "1"), 1)
        bare = later.roundtrip(pack_command("WAIT", 1, 100), 1)
        marked = later.roundtrip(confirm.extend(ping, 0.4), 3)
    with pytest.raises(ConnectionLost, match="only 0 of 1"):
        confirm.check(marked)
    replies = confirm.check(later.roundtrip(confirm.extend(ping, 2.0), 3))

    writer.close()
    later.close()
    # A wait alone says yes on some servers, which is why there is a mark before it.
    assert bare in ([0], [2])
    assert replies == [b"PONG"]


def test_a_user_who_may_not_wait_is_told() -> None:
    confirm = Confirm(1, channel="nobody", where="redis://h:1/0")

    with pytest.raises(CommandRefused, match=r"redis://h:1/0 refused to wait for replicas: NOPERM.*Allow PUBLISH"):
        confirm.check([b"OK", 0, ServerReplyError("NOPERM this user has no permissions to run the 'wait' command")])


def test_a_cluster_is_not_waited_for_and_says_so() -> None:
    address = parse_address("redis+cluster://one:7000,two:7000/")

    with pytest.raises(SettingError, match="HEADRACE_WAIT_REPLICAS=1: a cluster is not waited for"):
        confirm_by(1, address, "headrace")

    assert confirm_by(0, address, "headrace") is None
