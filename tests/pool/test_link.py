"""A link opens again by itself, hands each caller its own replies, and lets nobody pay for another's time limit."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from headrace.census import Census, Kind
from headrace.errors import CommandRefused, ConnectionLost, PoolClosed
from headrace.pool.address import parse_address
from headrace.pool.connection import Connection
from headrace.pool.link import Lane, Link
from headrace.resp import pack_command
from tests.support.scripted import Scripted, scripted, scripted_on_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.raw import Raw

DEADLINE = 10.0


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path / "s") as server:
        yield server


@pytest.fixture
def census() -> Census:
    return Census()


@pytest.fixture
async def make_link(fake: Scripted, census: Census) -> AsyncIterator[Callable[..., Link]]:
    made: list[Link] = []

    def make(**options: Any) -> Link:
        made.append(Link(parse_address(fake.url), Lane.USER, name="link", census=census, owner="test", **options))
        return made[-1]

    yield make
    for link in made:
        await link.close()
    assert census.entries() == []


def echo(command: list[bytes]) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(command[-1]), command[-1])


async def ask(link: Link, word: str, **options: Any) -> Any:
    (reply,) = await link.roundtrip(pack_command("ECHO", word), 1, **options)
    return reply


async def test_the_reply_of_a_cancelled_call_is_given_to_nobody_else(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    fake.answer = lambda _: None
    link = make_link()
    first = asyncio.create_task(ask(link, "first"))
    await fake.until(lambda seen: seen.commands)

    first.cancel()
    second = asyncio.create_task(ask(link, "second"))
    await fake.until(lambda seen: len(seen.commands) == 2)
    fake.send(b"$5\r\nfirst\r\n$6\r\nsecond\r\n")

    assert await asyncio.wait_for(second, DEADLINE) == b"second"
    assert fake.opened == 1


async def test_a_call_that_runs_out_of_time_ends_the_others_as_lost_not_as_closed(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    fake.answer = lambda _: None
    link = make_link()
    patient = asyncio.create_task(ask(link, "patient"))
    await fake.until(lambda seen: seen.commands)

    with pytest.raises(ConnectionLost, match="did not answer"):
        await ask(link, "hasty", timeout=0.01)

    with pytest.raises(ConnectionLost, match="broke"):
        await asyncio.wait_for(patient, DEADLINE)


async def test_a_connection_with_a_garbled_reply_is_replaced_and_counted_once(
    fake: Scripted, make_link: Callable[..., Link], census: Census
) -> None:
    fake.answer = lambda command: b"?what\r\n" if command[-1] == b"garble" else echo(command)
    link = make_link()

    with pytest.raises(ConnectionLost, match="no reply"):
        await ask(link, "garble")
    answer = await ask(link, "again")

    assert answer == b"again"
    assert (fake.opened, link.opened_total, link.failed_total) == (2, 2, 1)
    assert census.counts() == {Kind.CONNECTION: 1}


async def test_a_link_with_channels_opens_again_although_nobody_calls(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    reopened, pushed = asyncio.Event(), asyncio.Queue[tuple[bytes, bytes]]()
    link = make_link(on_push=lambda *message: pushed.put_nowait(message), on_reopen=reopened.set)
    await link.subscribe(["news"])

    fake.cut()
    await asyncio.wait_for(reopened.wait(), DEADLINE)
    fake.send(b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n")

    assert await asyncio.wait_for(pushed.get(), DEADLINE) == (b"news", b"hello")
    assert fake.opened == 2


async def test_subscribe_returns_only_once_the_channel_is_there_whoever_asked_first(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    link = make_link(on_push=lambda *_: None)
    await ask(link, "open")
    fake.handshake[b"PING"] = None
    first = asyncio.create_task(link.subscribe(["news"]))
    second = asyncio.create_task(link.subscribe(["news"]))
    await fake.until(lambda seen: seen.commands[-1][0] == b"SUBSCRIBE")

    ended, _ = await asyncio.wait({first, second}, timeout=0.05)
    fake.send(b"+PONG\r\n+PONG\r\n")
    await asyncio.wait_for(asyncio.gather(first, second), DEADLINE)

    assert ended == set()


async def test_a_link_that_closes_while_it_is_being_opened_ends_its_calls_with_pool_closed(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    fake.handshake[b"PING"] = None
    link = make_link()
    call = asyncio.create_task(ask(link, "never"))
    await fake.until(lambda seen: seen.opened)

    await link.close()

    with pytest.raises(PoolClosed, match="closed while it was being opened"):
        await asyncio.wait_for(call, DEADLINE)


async def test_a_server_that_cannot_save_to_its_disk_is_waited_for(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    fake.answer = echo
    fake.handshake[b"PING"] = b"-MISCONF Redis is configured to save RDB snapshots\r\n"
    link = make_link()
    call = asyncio.create_task(ask(link, "late"))
    await fake.until(lambda seen: seen.opened > 1)

    fake.handshake.clear()

    assert await asyncio.wait_for(call, DEADLINE) == b"late"


async def test_a_link_tells_how_long_its_calls_took_and_what_failed(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    fake.answer = lambda command: b"?what\r\n" if command[-1] == b"garble" else echo(command)
    times: list[float] = []
    errors: list[str] = []
    link = make_link(on_roundtrip=times.append, on_error=errors.append)

    await ask(link, "one")
    await ask(link, "two")
    with pytest.raises(ConnectionLost):
        await ask(link, "garble")

    assert len(times) == 2
    assert all(0 < seconds < DEADLINE for seconds in times)
    assert errors == ["ConnectionLost"]


async def test_an_opening_that_fails_is_told_by_its_cause(tmp_path: Path, census: Census) -> None:
    errors: list[str] = []
    nowhere = parse_address(f"unix://{tmp_path / 'nobody'}")
    link = Link(nowhere, Lane.USER, name="link", census=census, owner="test", on_error=errors.append)

    with pytest.raises(
        ConnectionLost, match=r"could not be reached: .*No such file.* no connection on 'link' \(lane user\)"
    ):
        await ask(link, "never", timeout=0.05)

    await link.close()
    assert errors[0] == "FileNotFoundError"
    assert errors[-1] == "TimeoutError"


async def test_a_server_that_says_nothing_is_told_from_one_that_refuses() -> None:
    # Why: the kernel accepts for a listener that never does, as it does for a server that stands still.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(parse_address(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"), name="test")

        with pytest.raises(ConnectionLost, match=r"^redis://127\.0\.0\.1:\d+/0 did not answer within 0\.05 s\. Check"):
            await connection.open(timeout=0.05)


#: How servers word that they are no primary, in a reply and inside a script.
NO_PRIMARY = [
    b"-READONLY You can't write against a read only replica.",
    b"-READONLY You can't write against a read only replica. script: 67ed14c1, on @user_script:1.",
    b"-ERR Error running script (call to f_67ed14c1): @user_script:1: -READONLY You can't write against a read only",
    b"-NOREPLICAS Not enough good replicas to write.",
    b"-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
]


@pytest.mark.parametrize("reply", NO_PRIMARY)
async def test_a_link_to_what_is_no_primary_any_more_is_dropped_with_all_calls_under_way(
    reply: bytes, fake: Scripted, make_link: Callable[..., Link]
) -> None:
    fake.answer = lambda _: None
    link = make_link()
    calls = [asyncio.create_task(ask(link, word)) for word in ("one", "two")]
    await fake.until(lambda seen: len(seen.commands) == 2)

    fake.send(reply + b"\r\n$3\r\ntwo\r\n")
    lost = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), DEADLINE)
    fake.answer = echo
    again = await ask(link, "again")

    assert [type(error) for error in lost] == [ConnectionLost, ConnectionLost]
    assert "takes no writes: " in str(lost[0])
    assert again == b"again"
    assert fake.opened == 2


async def test_other_errors_of_a_script_leave_the_link_alone(fake: Scripted, make_link: Callable[..., Link]) -> None:
    fake.answer = lambda _: b"-ERR READONLY-looking words, as in a job that is READONLY, are no refusal\r\n"
    link = make_link()

    replies = [await ask(link, "one"), await ask(link, "two")]

    assert [reply.code for reply in replies] == ["ERR", "ERR"]
    assert fake.opened == 1


async def test_a_user_that_may_not_even_name_its_connection_is_told_what_to_do(
    server: PrivateServer, raw: Raw, make_link: Callable[..., Link]
) -> None:
    raw("ACL", "SETUSER", "nameless", "on", ">secret", "+@all", "-client", "~*", "&*")
    link = make_link()
    link.address = parse_address(server.url.replace("://", "://nameless:secret@"))

    with pytest.raises(CommandRefused, match=r"NOPERM.*client\|setname.*Give the user in REDIS_URL this right"):
        await ask(link, "one")

    raw("ACL", "DELUSER", "nameless")


async def test_a_server_that_takes_connections_but_no_writes_is_not_flooded(
    fake: Scripted, make_link: Callable[..., Link]
) -> None:
    fake.answer = lambda _: NO_PRIMARY[0] + b"\r\n"
    link = make_link()
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.0

    while loop.time() < end:
        with pytest.raises(ConnectionLost):
            await ask(link, "write")

    # Why: waits of 10 ms, 20 ms, 40 ms ... on average, half of them shorter.
    assert 3 <= fake.opened <= 20


async def test_a_tcp_connection_is_without_delay_and_finds_that_its_other_side_is_gone(
    tmp_path: Path, census: Census
) -> None:
    async with scripted_on_port(tmp_path / "unused") as (server, port):
        server.answer = echo
        link = Link(parse_address(f"redis://127.0.0.1:{port}/0"), Lane.USER, name="tcp", census=census, owner="test")
        await ask(link, "open")

        assert link._connection is not None
        assert link._connection._transport is not None
        connected = link._connection._transport.get_extra_info("socket")
        wanted = {
            "TCP_NODELAY": 1, "TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000,
        }  # fmt: skip
        known = {name: getattr(socket, name) for name in wanted if hasattr(socket, name)}
        found = {name: connected.getsockopt(socket.IPPROTO_TCP, option) for name, option in known.items()}

        await link.close()
    assert {name: wanted[name] for name in found} == found
    assert connected.family == socket.AF_INET
