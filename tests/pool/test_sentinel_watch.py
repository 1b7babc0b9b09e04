"""Links leave a primary that was replaced at once, also when it is still there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from headrace import Headrace
from headrace.census import Census, Kind
from headrace.errors import ConnectionLost
from headrace.pool.address import parse_address
from headrace.pool.link import Lane, Link
from headrace.pool.sentinel_watch import SentinelWatch
from headrace.resp import pack_command
from tests.support.scripted import Scripted, scripted_on_port
from tests.support.sentinel import SentinelGroup, naming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.stalls import Stalls

DEADLINE = 15.0
PRIMARY = b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"


@contextlib.asynccontextmanager
async def as_primary(path: Path) -> AsyncIterator[tuple[Scripted, int]]:
    """Run a scripted server on a port, which says that it is a primary."""
    async with scripted_on_port(path) as (server, port):
        server.handshake[b"HELLO"] = PRIMARY
        yield server, port


def listens(sentinel: Scripted) -> bool:
    """Tell whether somebody is subscribed."""
    return any(command[0] == b"SUBSCRIBE" for command in sentinel.commands)


def told(name: str, before: int, now: int) -> bytes:
    """Return the message that a primary was replaced."""
    text = f"{name} 127.0.0.1 {before} 127.0.0.1 {now}".encode()
    return b">3\r\n+message\r\n++switch-master\r\n+%b\r\n" % text


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path_factory.mktemp("watch")) as group:
        yield group


async def test_a_call_on_a_primary_that_was_replaced_ends_at_once_and_the_next_goes_to_the_new_one(
    tmp_path: Path,
) -> None:
    census = Census()
    async with (
        as_primary(tmp_path / "s") as (sentinel, at),
        as_primary(tmp_path / "old") as (old, old_port),
        as_primary(tmp_path / "new") as (new, new_port),
    ):
        sentinel.answer = naming(old_port)
        old.answer = lambda _: None
        address = parse_address(f"redis+sentinel://127.0.0.1:{at}/main")
        link = Link(address, Lane.USER, name="link", census=census, owner="test")
        watch = SentinelWatch(address, census)
        watch.start()
        call = asyncio.create_task(link.roundtrip(pack_command("SET", "a", "1"), 1))
        await old.until(lambda seen: seen.commands)
        await sentinel.until(listens)
        sentinel.answer = naming(new_port)

        for name in ("other", "main"):
            sentinel.send(told(name, old_port, new_port))
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(call, DEADLINE)
        await link.roundtrip(pack_command("SET", "a", "1"), 1)

        place = link.place
        await watch.close()
        await link.close()
    assert (old.opened, new.opened) == (1, 1)
    assert place is not None
    assert place.port == new_port
    assert census.entries() == []


async def test_a_switch_that_nobody_heard_is_found_when_the_sentinel_is_back(tmp_path: Path) -> None:
    census = Census()
    async with (
        as_primary(tmp_path / "s") as (sentinel, at),
        as_primary(tmp_path / "old") as (_, old_port),
        as_primary(tmp_path / "new") as (_, new_port),
    ):
        sentinel.answer = naming(old_port)
        address = parse_address(f"redis+sentinel://127.0.0.1:{at}/main")
        left = asyncio.Event()
        link = Link(address, Lane.USER, name="link", census=census, owner="test", on_lost=left.set)
        watch = SentinelWatch(address, census)
        watch.start()
        await link.roundtrip(pack_command("SET", "a", "1"), 1)
        await sentinel.until(listens)

        sentinel.answer = naming(new_port)
        sentinel.cut()
        await asyncio.wait_for(left.wait(), DEADLINE)
        await link.roundtrip(pack_command("SET", "a", "1"), 1)

        place = link.place
        await watch.close()
        await link.close()
    assert place is not None
    assert place.port == new_port


async def test_a_link_that_was_being_opened_to_the_old_primary_goes_to_the_new_one(tmp_path: Path) -> None:
    async with as_primary(tmp_path / "s") as (sentinel, at), as_primary(tmp_path / "old") as (old, old_port):
        sentinel.answer = naming(old_port)
        old.handshake[b"PING"] = None
        address = parse_address(f"redis+sentinel://127.0.0.1:{at}/main")
        link = Link(address, Lane.USER, name="link", census=Census(), owner="test")
        call = asyncio.create_task(link.roundtrip(pack_command("SET", "a", "1"), 1, timeout=DEADLINE))
        await old.until(lambda seen: seen.opened)

        async with as_primary(tmp_path / "new") as (new, new_port):
            sentinel.answer = naming(new_port)
            assert address.sentinels is not None
            address.sentinels.switched("127.0.0.1", new_port)
            old.send(b"+PONG\r\n")
            replies = await call

            await link.close()
    assert replies == [b"OK"]
    assert (len(old.commands), len(new.commands)) == (0, 1)


async def test_a_primary_that_hangs_is_left_as_soon_as_another_was_promoted(
    group: SentinelGroup, stalls: Stalls
) -> None:
    before = group.primary()
    app = Headrace(group.url, settings={"prefix": "watch", "redis_acquire_timeout": DEADLINE})

    @app.task
    async def work() -> None: ...

    async with app:
        await work.enqueue()
        held = app.census_book.counts()[Kind.CONNECTION]
        os.kill(group.servers[before].pid, signal.SIGSTOP)
        watching = asyncio.create_task(asyncio.to_thread(group.agreed, before))
        try:
            await asyncio.wait_for(work.enqueue(), DEADLINE)
            back = time.monotonic()
            agreed = await watching
        finally:
            os.kill(group.servers[before].pid, signal.SIGCONT)

    assert held == 3, "one for users, one for control, one to a sentinel"
    assert stalls.lasted(agreed, back) < 1.5
    assert app.census() == []
