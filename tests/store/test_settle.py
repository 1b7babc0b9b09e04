"""What is settled together counts together, and what is refused takes nothing along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.store import replies
from headrace.store.store import Store
from tests.support.direct import Direct, finish
from tests.support.keyspace import QueueDump, dump_queue
from tests.support.raw import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.server import PrivateServer
    from tests.support.raw import Raw

LIMITS = (100, 100, 60_000)


class Desk:
    """One queue and one worker `w`, driven call by call."""

    def __init__(self, link: SyncLink, raw: Raw, prefix: str) -> None:
        self.store = Store(prefix, where="the test's server")
        self.direct = Direct(link)
        self.raw = raw
        self.prefix = prefix
        self.calls = self.store.queue("work")

    def enqueue(self, *ids: str) -> None:
        self.run(*self.store.pack_enqueue("work", 5, 0, [part for one in ids for part in (one, b"body")], resent=False))

    def reserve(self, count: int = 10) -> dict[bytes, bytes]:
        (reply,) = self.run(self.store.pack_reserve(self.calls, "w", 60_000, count, 0))
        reserved = replies.parse_reserved(reply)
        return dict(zip(reserved.ids, reserved.holds, strict=True))

    def settle(
        self, *entries: tuple[Any, ...], plain: tuple[bytes, ...] = (), limits: tuple[int, int, int] = LIMITS
    ) -> list[bytes]:
        flat = [part for entry in entries for part in entry]
        (reply,) = self.run(self.calls["settle"].pack(("w", 60_000, 0, 0, *limits, len(plain) // 2, *plain, *flat)))
        return list(reply[2])

    def run(self, *payloads: bytes) -> list[Any]:
        answers = self.store.run_sync(self.direct.link, payloads)
        for answer in answers:
            replies.refuse(answer, "a script", "the test's server")
        return answers

    def dump(self) -> QueueDump:
        return dump_queue(self.raw, self.prefix, "work")


@pytest.fixture
def desk(server: PrivateServer, raw: Raw, prefix: str) -> Iterator[Desk]:
    link = SyncLink(parse_address(server.url), name="test")
    yield Desk(link, raw, prefix)
    link.close()


def complete(job_id: bytes, hold: bytes, outcome: bytes = b"") -> tuple[Any, ...]:
    return ("complete", job_id, hold, 60_000 if outcome else 0, outcome, "")


def follow(job_id: str) -> tuple[Any, ...]:
    return ("follow", job_id, "", 0, b"body", "5")


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_refused_completion_takes_its_followers_along_whatever_stands_before_it(desk: Desk, others: int) -> None:
    desk.enqueue("a", "b", "c", "d")
    holds = desk.reserve()
    ends = [complete(job_id, hold) for job_id, hold in list(holds.items())[:others]]

    refused = desk.settle(*ends, complete(b"d", b"999+5+w"), follow("x"), follow("y"))

    assert refused == [b"d"]
    assert set(desk.dump().jobs) == {b"a", b"b", b"c", b"d"} - {end[1] for end in ends}


def test_each_completion_brings_its_own_followers(desk: Desk) -> None:
    desk.enqueue("a", "b", "c")
    holds = desk.reserve()

    refused = desk.settle(
        complete(b"a", holds[b"a"], b"one"), follow("a1"),
        complete(b"b", b"1+5+other"), follow("b1"),
        complete(b"c", holds[b"c"]), follow("c1"), follow("c2"),
    )  # fmt: skip

    assert refused == [b"b"]
    assert desk.dump().waiting() == [b"a1", b"c1", b"c2"]
    assert desk.dump().hashes["outcomes"] == {b"a": b"one"}


def test_completions_of_one_call_are_refused_one_by_one(desk: Desk) -> None:
    desk.enqueue("a", "b", "c", "d")
    holds = desk.reserve()
    stale = holds[b"b"].replace(b"+w", b"+v")

    refused = desk.settle(plain=(b"a", holds[b"a"], b"b", stale, b"c", holds[b"c"], b"z", b"1+5+w"))

    assert refused == [b"b", b"z"]
    assert set(desk.dump().hashes["held"]) == {b"b", b"d"}
    assert set(desk.dump().jobs) == {b"b", b"d"}


def test_a_thousand_completions_and_their_outcomes_fit_one_call(desk: Desk) -> None:
    ids = [f"j{number:04}" for number in range(1_000)]
    desk.enqueue(*ids)
    holds = desk.reserve(1_000)

    assert desk.settle(*(complete(job_id, hold, b"r") for job_id, hold in holds.items())) == []

    assert len(holds) == 1_000
    assert not desk.dump().jobs
    assert len(desk.dump().hashes["outcomes"]) == LIMITS[0]


def test_a_start_whose_reply_was_lost_makes_neither_progress_nor_the_end_a_late_one(desk: Desk) -> None:
    desk.enqueue("a")
    (reply,) = desk.run(desk.store.pack_reserve(desk.calls, "w", 60_000, 0, 1))
    hold = replies.parse_reserved(reply).holds[0]
    assert b"-" in hold
    desk.settle(("start", b"a", hold, 0, "", ""))
    assert b"+" in desk.dump().hashes["held"][b"a"]

    # Progress travels on another connection, and may leave before the worker knows that its start is recorded.
    assert finish(desk.store.report(desk.direct, "work", "a", hold, b"\x92\x05\xa0"))
    assert desk.settle(complete(b"a", hold)) == []


def test_at_most_sixteen_inboxes_wait_for_a_job_and_the_latest_are_told(
    desk: Desk, server: PrivateServer, prefix: str
) -> None:
    desk.enqueue("a")
    inboxes = [f"{prefix}:inbox:{number}" for number in range(20)]
    listener = Listener(server.url, inboxes)
    for inbox in inboxes:
        finish(desk.store.watch(desk.direct, "work", "a", inbox, enter=True))

    desk.settle(complete(b"a", desk.reserve()[b"a"], b"result"))

    told = listener.take()
    listener.close()
    assert len(told) == 16
    assert (inboxes[-1], b"a completed result") in told


def test_a_finished_job_that_is_trimmed_leaves_nothing_beside_it(desk: Desk) -> None:
    desk.enqueue("a", "b", "c")
    holds = desk.reserve()
    for job_id, hold in holds.items():
        assert finish(desk.store.report(desk.direct, "work", job_id.decode(), hold, b"\x92\x05\xa0"))

    desk.settle(
        ("cancel", b"a", holds[b"a"], 0, "", ""),
        ("dead", b"b", holds[b"b"], 0, b"errors", "1 0 0"),
        complete(b"c", holds[b"c"], b"outcome"),
        limits=(0, 0, 60_000),
    )

    seen = desk.dump()
    assert not any(seen.hashes[part] for part in ("jobs", "held", "state", "errors", "progress", "outcomes"))
    assert not any(seen.zsets[part] for part in ("dead", "cancelled", "kept"))
