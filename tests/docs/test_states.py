"""Every transition of docs/state-machine.md happens on a real server, by the script that the page names."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headrace import JobStatus
from headrace.ids import random_name
from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.record import Outcome, encode_outcome
from headrace.resp import pack_command
from headrace.store.replies import parse_reserved
from headrace.store.store import Store
from tests.docs.pages import SCRIPTS, headers
from tests.docs.picture import BOXES, WAYS, arrows
from tests.docs.states import ELSEWHERE, NOWHERE, TRANSITIONS, Transition
from tests.support.direct import Direct, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.server import PrivateServer

QUEUE = "mail"
WORKER = "w1"
LEASE_MS = 600_000
HOUR_MS = 3_600_000
BODY = b"\x00\x01t\x90"
ERRORS = b"\x90"
OUTCOME = encode_outcome(Outcome("t", msgspec.Raw(b"\xc0")))


class Bench:
    """One job of one queue, and the scripts that move it. Time passes because scores are changed."""

    def __init__(self, link: SyncLink) -> None:
        self._direct = Direct(link)
        self._link = link
        self._store = Store(f"t-{random_name(8)}", where="the server")
        self._calls = self._store.queue(QUEUE)
        self._numbers = count()
        self.id = ""
        self.hold = b""

    def status(self) -> str:
        found = finish(self._store.find(self._direct, QUEUE, self.id)).status
        return NOWHERE if found == "missing" else found

    def run(self, *payloads: bytes) -> list[Any]:
        return self._store.run_sync(self._link, payloads)

    def age(self, key: str, member: str) -> None:
        """Let the time of one entry be long past."""
        self.run(pack_command("ZADD", self._calls.keys[key], "XX", 1, member))

    # The scripts

    def enqueue(self, delay_ms: int = 0) -> None:
        self.id = f"job{next(self._numbers)}"
        self.run(*self._store.pack_enqueue(QUEUE, 5, delay_ms, (self.id, BODY), resent=False))

    def promote(self) -> None:
        self.age("delayed", self.id)
        finish(self._store.promote(self._direct, QUEUE))

    def reserve(self) -> None:
        (reply,) = self.run(self._store.pack_reserve(self._calls, WORKER, LEASE_MS, 1, 0))
        reserved = parse_reserved(reply)
        assert reserved.ids == [self.id.encode()]
        self.hold = reserved.holds[0]

    def settle(self, *entries: tuple[Any, ...]) -> None:
        keep_count, dead_count, keep_ms = 10, 10, HOUR_MS
        head = (WORKER, LEASE_MS, 0, 1, keep_count, dead_count, keep_ms, 0)
        (reply,) = self.run(self._calls["settle"].pack((*head, *(part for entry in entries for part in entry))))
        assert (reply[0], reply[2]) == (0, [])

    def end(self, verb: str, number: int = 0, text: bytes = b"", extra: str = "") -> None:
        self.settle((verb, self.id, self.hold, number, text, extra))

    def follow(self) -> None:
        self.enqueue()
        self.reserve()
        before, self.id = self.id, "follower"
        self.settle(("complete", before, self.hold, 0, b"", ""), ("follow", self.id, b"", 0, BODY, "5"))

    def grow_old(self, key: str) -> None:
        """Let the job's time be past, and another worker settle nothing: that is when history is trimmed."""
        finished = self.id
        self.age(key, finished)
        self.enqueue()
        self.reserve()
        self.settle()
        self.id = finished

    def reclaim(self, max_stalled: int = 3) -> None:
        self.age("leases", WORKER)
        finish(self._store.reclaim(self._direct, QUEUE, max_stalled))

    def cancel(self) -> None:
        finish(self._store.cancel(self._direct, QUEUE, self.id))

    def retry(self) -> None:
        finish(self._store.retry(self._direct, QUEUE, (self.id,)))

    def clear(self, status: str) -> None:
        finish(self._store.clear(self._direct, QUEUE, status, 10))

    # The statuses

    def bring_to(self, status: str) -> None:
        if status == NOWHERE:
            return
        self.enqueue(HOUR_MS if status == "delayed" else 0)
        if status == "cancelled":
            self.cancel()
        elif status not in {"waiting", "delayed"}:
            self.reserve()
            if status == "completed":
                self.end("complete", HOUR_MS, OUTCOME)
            elif status == "failed":
                self.end("dead", 0, ERRORS, "1 0 0")


def cancel_then(bench: Bench, act: Callable[[], None]) -> None:
    """Ask for the cancellation of a job that runs, which leaves it active, and go on."""
    bench.cancel()
    assert bench.status() == "active"
    act()


ACTS: dict[tuple[str, str, str], Callable[[Bench], object]] = {
    (NOWHERE, "waiting", "enqueue"): Bench.enqueue,
    (NOWHERE, "delayed", "enqueue"): lambda bench: bench.enqueue(HOUR_MS),
    (NOWHERE, "waiting", "settle follow"): Bench.follow,
    ("delayed", "waiting", "promote"): Bench.promote,
    ("delayed", "cancelled", "cancel"): Bench.cancel,
    ("waiting", "active", "reserve"): Bench.reserve,
    ("waiting", "cancelled", "cancel"): Bench.cancel,
    ("active", "completed", "settle complete"): lambda bench: bench.end("complete", HOUR_MS, OUTCOME),
    ("active", NOWHERE, "settle complete"): lambda bench: bench.end("complete"),
    ("active", "delayed", "settle retry"): lambda bench: bench.end("retry", HOUR_MS, ERRORS, "1 0 0"),
    ("active", "waiting", "settle retry"): lambda bench: bench.end("retry", 0, ERRORS, "1 0 0"),
    ("active", "delayed", "settle defer"): lambda bench: bench.end("defer", HOUR_MS, b"", "0 0 1"),
    ("active", "waiting", "settle back"): lambda bench: bench.end("back"),
    ("active", "waiting", "reclaim"): Bench.reclaim,
    ("active", "failed", "settle dead"): lambda bench: bench.end("dead", 0, ERRORS, "1 0 0"),
    ("active", "failed", "reclaim"): lambda bench: bench.reclaim(max_stalled=0),
    ("active", "cancelled", "settle cancel"): lambda bench: cancel_then(bench, lambda: bench.end("cancel")),
    ("active", "cancelled", "reclaim"): lambda bench: cancel_then(bench, bench.reclaim),
    ("failed", "waiting", "retry"): Bench.retry,
    ("cancelled", "waiting", "retry"): Bench.retry,
    ("completed", NOWHERE, "settle"): lambda bench: bench.grow_old("kept"),
    ("failed", NOWHERE, "settle"): lambda bench: bench.grow_old("dead"),
    ("cancelled", NOWHERE, "settle"): lambda bench: bench.grow_old("cancelled"),
    ("waiting", NOWHERE, "clear"): lambda bench: bench.clear("waiting"),
    ("delayed", NOWHERE, "clear"): lambda bench: bench.clear("delayed"),
    ("completed", NOWHERE, "clear"): lambda bench: bench.clear("completed"),
    ("failed", NOWHERE, "clear"): lambda bench: bench.clear("failed"),
    ("cancelled", NOWHERE, "clear"): lambda bench: bench.clear("cancelled"),
}


@pytest.fixture
def bench(server: PrivateServer) -> Iterator[Bench]:
    link = SyncLink(parse_address(server.url), name="states")
    yield Bench(link)
    link.close()


@pytest.mark.parametrize("each", TRANSITIONS, ids=lambda each: f"{each.source}-{each.target}-{each.script}")
def test_the_transition_happens(bench: Bench, each: Transition) -> None:
    bench.bring_to(each.source)
    before = bench.status() if bench.id else NOWHERE

    ACTS[each.source, each.target, each.script](bench)

    assert (before, bench.status()) == (each.source, each.target)


def test_the_picture_has_a_way_for_each_pair_of_statuses_and_a_box_for_each_status() -> None:
    assert arrows().keys() == WAYS.keys()
    assert set(BOXES) == set(JobStatus)


def test_the_statuses_are_those_of_a_job() -> None:
    named = {status for each in TRANSITIONS for status in (each.source, each.target)} - {NOWHERE}

    assert named == set(JobStatus)


def test_every_script_is_a_transition_or_leaves_the_status_alone() -> None:
    moving = {each.file for each in TRANSITIONS}

    assert not moving & ELSEWHERE
    assert moving | ELSEWHERE == {name for name, _, _ in headers()}


def test_every_verb_of_settle_is_a_transition_but_start() -> None:
    text = (SCRIPTS / "settle.lua").read_text()

    verbs = {each.script.partition(" ")[2] for each in TRANSITIONS if each.file == "settle"} - {""}

    assert verbs | {"start"} == set(re.findall(r"^-- {20,}([a-z]+) {2,}\S", text, re.MULTILINE))
