"""Links find the primary through its sentinels, refuse what is none, and follow it through a failover."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.census import Census
from headrace.errors import CommandRefused, ConnectionLost, SettingError
from headrace.pool.address import Address, parse_address
from headrace.pool.connection import ServerReplyError
from headrace.pool.link import Lane, Link
from headrace.pool.sentinel import LOCATE_TIMEOUT, Search, locate, locate_sync
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command
from headrace.settings import load_settings
from headrace.settings_env import mask_url
from tests.support.cluster import free_ports
from tests.support.scripted import scripted_on_port
from tests.support.sentinel import SentinelGroup, naming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.stalls import Stalls

DEADLINE = 15.0
PING = pack_command("PING")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path_factory.mktemp("sentinel")) as group:
        yield group


@pytest.fixture
async def make_link() -> AsyncIterator[Callable[..., Link]]:
    census = Census()
    made: list[Link] = []

    def make(url: str) -> Link:
        made.append(Link(parse_address(url), Lane.USER, name="link", census=census, owner="test"))
        return made[-1]

    yield make
    for link in made:
        await link.close()
    assert census.entries() == []


def port_of(group: SentinelGroup, number: int) -> int:
    port = group.servers[number].port
    assert port is not None
    return port


# The URL

URLS = {
    "redis+sentinel://one:1,two,[::1]:3/main/2": ((("one", 1), ("two", 26379), ("::1", 3)), "main", 2),
    "rediss+sentinel://u:p@10.0.0.1/my-main?ssl_cert_reqs=none": ((("10.0.0.1", 26379),), "my-main", 0),
    "redis+sentinel://:p%40x@one:1/my%20main/": ((("one", 1),), "my main", 0),
}
NO_URLS = [
    "redis+sentinel://", "redis+sentinel://one", "redis+sentinel://one:1/", "redis+sentinel://one:1/main/zero",
    "redis+sentinel://one:1/main/0/1", "redis+sentinel://one:0/main", "redis+sentinel://one:70000/main",
    "redis+sentinel://one:1,,two:2/main", "redis+sentinel://one:x/main", "redis+sentinel://[::1/main",
    "redis+sentinel://[::1]x:1/main", "unix+sentinel:///tmp/x/main", "redis+sentinel://" + "h," * 16 + "h/main",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_addresses_of_sentinels_are_read(url: str) -> None:
    address = parse_address(url)

    assert load_settings(environ={"REDIS_URL": url}, dotenv=None).redis_url == url
    assert address.sentinels is not None
    assert (address.sentinels.places, address.sentinels.service, address.database) == URLS[url]
    assert address.tls is url.startswith("rediss")


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_address_of_sentinels_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="redis_url"):
        load_settings({"redis_url": url}, environ={}, dotenv=None)
    with pytest.raises(SettingError, match=r"REDIS_URL=.*Write redis://"):
        parse_address(url)


def test_the_server_and_its_sentinels_have_logins_of_their_own() -> None:
    address = parse_address("redis+sentinel://app:one@a:1,b:2/main/3?sentinel_username=watch&sentinel_password=t%26wo")

    first, second = address.sentinel_addresses()

    assert (address.username, address.password) == ("app", "one")
    assert (first.username, first.password) == (second.username, second.password) == ("watch", "t&wo")
    assert first.handshake("x") == [("HELLO", 3, "AUTH", "watch", "t&wo"), ("PING",)]
    primary = address.primary_at("c", 4)
    assert str(primary) == "redis://c:4/3"
    assert primary.handshake("x")[0] == ("HELLO", 3, "AUTH", "app", "one")


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(lambda s: f"S3cr{s}")
SHAPES = [
    "redis+sentinel://u:{}@h:1,i:2/main/0", "redis+sentinel://:{}@h,i/main", "redis+sentinel://u:{}@h:1,,i/main",
    "rediss+sentinel://u:{0}@h:1,i:2/main?sentinel_password={0}", "redis+sentinel://h:1,i:2/main?sentinel_password={}",
]  # fmt: skip


@given(secrets, st.sampled_from(SHAPES))
def test_a_password_beside_several_hosts_is_never_shown(secret: str, shape: str) -> None:
    url = shape.format(quote(secret, safe=""))

    try:
        address = parse_address(url)
        shown = f"{address} {address!r} {address.sentinel_addresses()} {Search(address).error()}"
    except SettingError as error:
        shown = f"{error} {error.value}"

    assert "S3cr" not in shown + mask_url(url)


def test_masking_keeps_the_hosts_of_sentinels() -> None:
    assert mask_url("redis+sentinel://one:26379,two/main/0?db=1") == "redis+sentinel://one:26379,two/main/0?db=1"
    assert mask_url("redis+sentinel://u:p@one:1,two:2/main") == "redis+sentinel://u:***@one:1,two:2/main"


# The search

answers = st.sampled_from(["primary", "unknown", "error", "refused", "unreachable"])


@given(st.lists(answers, min_size=1, max_size=16), st.integers(0, 15))
def test_a_search_asks_each_sentinel_once_until_one_names_the_primary(given_answers: list[str], start: int) -> None:
    places = ",".join(f"h{number}" for number in range(len(given_answers)))
    address = parse_address(f"redis+sentinel://{places}/main")
    assert address.sentinels is not None
    address.sentinels.first = first = start % len(given_answers)
    search = Search(address)
    asked: list[int] = []
    found: Address | None = None

    for sentinel in search:
        asked.append(int(sentinel.host[1:]))
        answer = given_answers[asked[-1]]
        if answer == "unreachable":
            search.failed(sentinel, ConnectionLost("gone"))
        elif answer == "refused":
            search.failed(sentinel, CommandRefused("wrong password"))
        else:
            reply = {"primary": [b"p", b"7"], "unknown": None, "error": ServerReplyError("NOPERM no")}[answer]
            found = search.answered(sentinel, reply)
        if found is not None:
            break

    order = [(first + step) % len(given_answers) for step in range(len(given_answers))]
    good = [number for number in order if given_answers[number] == "primary"]
    assert asked == (order[: order.index(good[0]) + 1] if good else order)
    assert search.timeout * len(order) <= LOCATE_TIMEOUT + 1e-9
    if good:
        assert found == address.primary_at("p", 7)
        assert address.sentinels.first == good[0]
    else:
        refused = "unreachable" not in given_answers
        assert isinstance(search.error(), CommandRefused if refused else ConnectionLost)


# Real sentinels


async def test_the_primary_is_found_past_a_dead_sentinel_which_is_asked_last_from_then_on(group: SentinelGroup) -> None:
    url = group.url.replace("@", f"@127.0.0.1:{free_ports(1)[0]},", 1)
    address = parse_address(url)

    found = [await locate(address), await asyncio.to_thread(locate_sync, address)]

    assert {place.port for place in found} == {port_of(group, group.primary())}
    assert address.sentinel_addresses()[0].port == group.ports[0]
    assert address.sentinel_addresses()[-1].port not in group.ports


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [("/main/", "/other/", "knows no primary 'other'"), ("=w4tch", "=wrong", "WRONGPASS"), ("=w4tch", "=", "NOAUTH")],
)
async def test_a_wrong_name_or_password_is_told_and_not_tried_for_ever(
    group: SentinelGroup, make_link: Callable[..., Link], old: str, new: str, reason: str
) -> None:
    url = group.url.replace(old, new)

    with pytest.raises(CommandRefused, match=reason):
        await make_link(url).roundtrip(PING, 1, timeout=DEADLINE)
    with pytest.raises(CommandRefused, match=f"{reason}.*Correct the name of the primary"):
        await asyncio.to_thread(locate_sync, parse_address(url))


async def test_sentinels_that_do_not_answer_are_given_up_in_time(
    make_link: Callable[..., Link], group: SentinelGroup, tmp_path: Path, stalls: Stalls
) -> None:
    async with scripted_on_port(tmp_path / "s") as (mute, port):
        mute.handshake[b"PING"] = None
        began = time.monotonic()
        link = make_link(group.url.replace("@", f"@127.0.0.1:{port},", 1))
        replies = await link.roundtrip(PING, 1)
        ended = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"no sentinel named the primary.*TimeoutError"):
            await locate(parse_address(f"redis+sentinel://127.0.0.1:{port}/main"))

    assert replies == [b"PONG"]
    assert mute.opened == 2
    assert ended - began >= 0.5
    assert stalls.lasted(began, ended) < 3.0


async def test_a_call_from_synchronous_code_keeps_its_limit_while_sentinels_are_mute(
    tmp_path: Path, stalls: Stalls
) -> None:
    async with scripted_on_port(tmp_path / "s") as (mute, port):
        mute.handshake[b"HELLO"] = None
        link = SyncLink(parse_address(f"redis+sentinel://127.0.0.1:{port}/main"), name="sync")
        began = time.monotonic()

        with pytest.raises(ConnectionLost, match="no sentinel named the primary"):
            await asyncio.to_thread(link.roundtrip, PING, 1, timeout=0.1)

        took = stalls.lasted(began)
        link.close()
    assert mute.opened
    assert took < 0.4


@pytest.mark.parametrize("kind", ["link", "sync link"])
async def test_a_replica_that_a_stale_sentinel_names_is_refused_and_the_sentinels_are_asked_again(
    group: SentinelGroup, make_link: Callable[..., Link], tmp_path: Path, kind: str
) -> None:
    primary = group.primary()
    replica = port_of(group, (primary + 1) % 3)
    async with scripted_on_port(tmp_path / "s") as (stale, port):
        stale.answer = naming(replica, replica, port_of(group, primary))
        url = f"redis+sentinel://app:s3cret@127.0.0.1:{port}/main/0"
        command = pack_command("SET", "found", "1")
        if kind == "link":
            replies = await make_link(url).roundtrip(command, 1, timeout=DEADLINE)
        else:
            link = SyncLink(parse_address(url), name="sync")
            replies = await asyncio.to_thread(link.roundtrip, command, 1)
            link.close()

    assert replies == [b"OK"]
    assert len(stale.commands) == 3


@pytest.mark.parametrize("command", [("SET", "a", "1"), ("EVAL", "return redis.call('SET', KEYS[1], '1')", "1", "a")])
async def test_a_server_that_became_a_replica_is_left_at_its_first_refusal(
    group: SentinelGroup, make_link: Callable[..., Link], command: tuple[str, ...]
) -> None:
    replica = f"redis://127.0.0.1:{port_of(group, (group.primary() + 1) % 3)}/0"
    link, sync_link = make_link(replica), SyncLink(parse_address(replica), name="sync")
    await link.roundtrip(PING, 1)
    await asyncio.to_thread(sync_link.roundtrip, PING, 1)

    with pytest.raises(ConnectionLost, match="takes no writes: READONLY"):
        await link.roundtrip(pack_command(*command), 1)
    with pytest.raises(ConnectionLost, match="takes no writes: READONLY"):
        await asyncio.to_thread(sync_link.roundtrip, pack_command(*command), 1)

    assert not link.is_open
    assert sync_link._socket is None
    sync_link.close()


@pytest.mark.parametrize("fault", ["asked for", "killed"])
async def test_links_follow_the_primary_through_a_failover(
    group: SentinelGroup, make_link: Callable[..., Link], fault: str, stalls: Stalls
) -> None:
    await asyncio.to_thread(group.until_whole)
    before = group.primary()
    link, sync_link = make_link(group.url), SyncLink(parse_address(group.url), name="sync")

    def set_sync(_: int) -> None:
        sync_link.roundtrip(pack_command("SET", "follow", "sync"), 1)

    async def carries_on(send: Callable[[], Any]) -> float:
        while True:
            with contextlib.suppress(ConnectionLost):
                await send()
                if link.place is not None and link.place.port != port_of(group, before):
                    return time.monotonic()
            await asyncio.sleep(0.005)

    await link.roundtrip(PING, 1)
    await asyncio.to_thread(set_sync, 0)
    watching = asyncio.create_task(asyncio.to_thread(group.agreed, before))
    if fault == "killed":
        group.servers[before].kill()
    else:
        group.fail_over()
    back = await asyncio.wait_for(carries_on(lambda: link.roundtrip(pack_command("INCR", "follow-1"), 1)), DEADLINE)
    agreed = await watching
    await asyncio.wait_for(carries_on(lambda: asyncio.to_thread(set_sync, 0)), DEADLINE)
    sync_link.close()

    await asyncio.to_thread(group.until_whole)
    assert group.primary() != before
    assert stalls.lasted(agreed, back) < 1.5


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of 127.0.0.1 in one file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path / "both.pem"
    subprocess.run(
        [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text((tmp_path / "key.pem").read_text() + (tmp_path / "cert.pem").read_text())
    return path


async def test_tls_holds_for_the_sentinels_and_the_primary(
    certificate: Path, make_link: Callable[..., Link], tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with (
        scripted_on_port(tmp_path / "s", context) as (sentinel, port),
        scripted_on_port(tmp_path / "p", context) as (server, at),
    ):
        sentinel.answer = naming(at)
        server.handshake[b"HELLO"] = b"%1\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        url = f"rediss+sentinel://127.0.0.1:{port}/main?ssl_ca_certs={certificate}"
        sync_link = SyncLink(parse_address(url), name="sync")

        replies = await make_link(url).roundtrip(pack_command("SET", "a", "1"), 1)
        replies += await asyncio.to_thread(sync_link.roundtrip, pack_command("SET", "b", "1"), 1)
        with pytest.raises(ConnectionLost, match="CERTIFICATE_VERIFY_FAILED"):
            await locate(parse_address(f"rediss+sentinel://127.0.0.1:{port}/main"))
        sync_link.close()

    assert replies == [b"OK", b"OK"]
    assert [command[1] for command in server.commands] == [b"a", b"b"]
    assert len(sentinel.commands) == 2
