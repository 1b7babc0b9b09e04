"""Scripts are read by their headers, and a call that does not fit its header is refused before it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.errors import CommandRefused
from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.store import replies
from headrace.store.script import HeaderError, PreparedScript, load_scripts, parse_script
from headrace.store.store import Store
from tests.support.direct import Direct, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.server import PrivateServer
    from tests.support.raw import Raw

TEXT = """\
-- count: do something.
-- KEYS  jobs     hash  id -> record
--       wait[3]  list  ids by priority
-- ARGV  limit  int   1..1000
--       ids    rest  further ids
-- USES  now
-- Returns    a number
-- Invariant  none
-- Bound      O(1)
local now = now_ms()
return {jobs, KEYS[wait + 1], KEYS[wait + 3], limit, ARGV[ids], #ARGV - ids + 1, now > 0 and 1 or 0}
"""
NOW = """\
-- now: the time.
local function now_ms()
  local t = redis.call('TIME') -- of the server
  return t[1] * 1000
end
"""


@pytest.fixture
def direct(server: PrivateServer) -> Iterator[Direct]:
    link = SyncLink(parse_address(server.url), name="test")
    yield Direct(link)
    link.close()


def test_the_header_names_the_locals_of_a_script(direct: Direct) -> None:
    script = parse_script("count", TEXT, {"now": NOW}.__getitem__)
    call = PreparedScript(script, ["{t}:jobs", "{t}:w1", "{t}:w2", "{t}:w3"]).pack(("7", "a", "b", "c"))
    evaluated = call.replace(b"$7\r\nEVALSHA", b"$4\r\nEVAL").replace(
        b"$40\r\n" + script.sha.encode(), b"$%d\r\n%b" % (len(script.source), script.source.encode())
    )

    (reply,) = direct.link.roundtrip(evaluated, 1)

    assert reply == [b"{t}:jobs", b"{t}:w1", b"{t}:w3", b"7", b"a", 3, 1]
    assert script.key_names == ("jobs", "wait1", "wait2", "wait3")


def test_an_error_in_a_script_names_the_line_of_its_file(direct: Direct) -> None:
    text = TEXT.replace("return {", "error('here')\nreturn {")
    script = parse_script("count", text, {"now": NOW}.__getitem__)

    (sha, reply) = direct.link.roundtrip(
        b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(script.source), script.source.encode())
        + PreparedScript(script, ["a", "b", "c", "d"]).pack(("1",)),
        2,
    )

    assert sha.decode() == script.sha
    assert f":{text.splitlines().index(chr(101) + 'rror(' + repr('here') + ')') + 1}:" in str(reply)


@pytest.mark.parametrize("count", [0, 3, 5])
def test_a_wrong_number_of_keys_is_refused(count: int) -> None:
    script = parse_script("count", TEXT, {"now": NOW}.__getitem__)

    with pytest.raises(HeaderError, match=rf"'count' was called with {count} keys; its header names 4\."):
        PreparedScript(script, ["key"] * count)


def test_a_wrong_number_of_arguments_is_refused() -> None:
    scripts = load_scripts()
    renew = PreparedScript(scripts["renew"], ["key"] * len(scripts["renew"].key_names))
    settle = PreparedScript(scripts["settle"], ["key"] * len(scripts["settle"].key_names))

    for wrong in ((), ("worker",), ("worker", 1000, 1)):
        with pytest.raises(HeaderError, match=f"'renew' was called with {len(wrong)} arguments; its header names 2\\."):
            renew.pack(wrong)
    with pytest.raises(HeaderError, match=r"'settle' was called with 3 arguments; its header names \d or more\."):
        settle.pack(("worker", 1000, 1))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("-- Bound      O(1)\n", "", "lacks Bound in its header"),
        ("-- ARGV  limit  int   1..1000\n--       ids    rest  further ids\n", "", "lacks ARGV in its header"),
        ("-- count: ", "-- other: ", "lacks its name in its header"),
        ("limit  int   1..1000", "LIMIT = 7", "has a line under ARGV that cannot be read"),
    ],
)
def test_an_incomplete_header_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in TEXT

    with pytest.raises(HeaderError, match=complaint):
        parse_script("count", TEXT.replace(old, new), {"now": NOW}.__getitem__)


def test_every_script_loads_and_the_server_agrees_on_its_hash(raw: Raw) -> None:
    for script in load_scripts().values():
        assert raw.load(script.source) == script.sha


def test_calls_are_sent_again_in_their_order_when_the_server_forgot_all_scripts(direct: Direct, raw: Raw) -> None:
    store = Store("t-noscript", where="the test's server")
    calls = store.queue("work")
    for _ in range(2):
        raw("SCRIPT", "FLUSH")
        (payload,) = store.pack_enqueue("work", 5, 0, ["a", b"body", "b", b"body"], resent=True)

        enqueued, reserved = store.run_sync(direct.link, [payload, store.pack_reserve(calls, "w", 1000, 2, 0)])

        assert enqueued[0] in {2, 0}
        assert replies.parse_reserved(reserved).ids in ([b"a", b"b"], [])
    raw("UNLINK", *raw.keys("t-noscript:"))


def test_an_error_reply_says_what_was_refused_and_where(direct: Direct, raw: Raw) -> None:
    store = Store("t-refused", where="redis://shop:6379/0")
    raw("SET", store.queue("work").keys["meta"], "no hash")

    with pytest.raises(CommandRefused, match=r"redis://shop:6379/0 refused stats: .*WRONGTYPE"):
        finish(store.stats(direct, "work"))
    raw("UNLINK", *raw.keys("t-refused:"))
