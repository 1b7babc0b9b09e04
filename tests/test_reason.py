"""Why a job is where it is: every state of a job has its word and its sentence. Pure facts in, text out."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import msgspec
import pytest

from headrace.reason import WORKER_SEEN, Surroundings, explain, look_around
from headrace.record import NO_OPTIONS, BodyWriter, Failure, Outcome, State
from headrace.store.replies import Found, WorkerFacts


class Case(NamedTuple):
    code: str
    text: str
    facts: Found
    around: Surroundings


NOW = 1_790_000_100_000
STAMP = bytes([1, 5]) + (NOW - 60_000).to_bytes(6, "big")
RECORD = STAMP + BodyWriter("shop.send", limit_bytes=1_024, compress_over_bytes=0).write(b"\x90", None, NO_OPTIONS)
FAILURE = Failure(2, NOW - 5_000, "ValueError", "no such address")
HOLD = f"{NOW - 12_300}+5+w1".encode()
HELD = HOLD.replace(b"+", b"-")
FACTS = WorkerFacts(host="box", pid=7, queues=["mail"], seen=NOW / 1000 - 1)
SERVED = Surroundings("mail", workers=2)
ALONE = Surroundings("mail")


def found(status: str, state: State | None = None, **facts: Any) -> Found:
    base = Found(
        status, NOW, RECORD, state or State(), [], None, None, 0, b"", paused=False, lease_deadline_ms=NOW + 20_000
    )
    return dataclasses.replace(base, **facts)


OUTCOME = Outcome("shop.send", msgspec.Raw(b"\xc0"), 2, NOW - 3_000, NOW - 2_000)
DELAYED: dict[str, Any] = {"at_ms": NOW + 3_210}
OVERDUE: dict[str, Any] = {"at_ms": NOW - 500}
TRIED: dict[str, Any] = {"state": State(2), "failures": [FAILURE]}

CASES = [
    Case(
        "missing",
        "There is no such job: it never was, or it completed and its outcome is not kept.",
        found("missing"),
        SERVED,
    ),
    Case("completed", "It completed 2.0 s ago with attempt 2.", found("completed", outcome=OUTCOME), SERVED),
    Case("completed", "It completed.", found("completed"), SERVED),
    Case(
        "dead",
        "It has been dead for 5.0 s after 2 attempts: ValueError: no such address.",
        found("failed", at_ms=NOW - 5_000, **TRIED),
        SERVED,
    ),
    Case(
        "dead",
        "It has been dead for 5.0 s after 1 attempt. It came from queue 'mail'; a retry puts it back there.",
        found("failed", State(1, 0, 0, "from mail"), at_ms=NOW - 5_000),
        SERVED,
    ),
    Case(
        "dead",
        "It has been dead for 90 s: it stalled 4 times, its worker was lost each time it ran.",
        found("failed", State(4, 4, 0, "stalled"), at_ms=NOW - 90_000),
        SERVED,
    ),
    Case("cancelled", "It was cancelled 42 ms ago.", found("cancelled", at_ms=NOW - 42), SERVED),
    Case("delayed", "It is due in 3.2 s.", found("delayed", **DELAYED), ALONE),
    Case("delayed", "It is due in 3.2 s after 2 attempts (ValueError).", found("delayed", **DELAYED, **TRIED), SERVED),
    Case("delayed", "It was due 500 ms ago.", found("delayed", **OVERDUE), SERVED),
    Case(
        "no-worker",
        "It was due 500 ms ago. No live worker serves queue 'mail': start one with "
        "`headrace worker module:app -q mail`.",
        found("delayed", **OVERDUE),
        ALONE,
    ),
    Case(
        "paused",
        "It was due 500 ms ago. Queue 'mail' is paused: resume it with `headrace queues resume mail`.",
        found("delayed", paused=True, **OVERDUE),
        SERVED,
    ),
    Case(
        "deferred",
        "Workers left it to others 3 times: none knew its task 'shop.send'. Start a worker that imports the module "
        "which defines it. It is due in 3.2 s, when a worker looks at it again.",
        found("delayed", State(0, 0, 3), **DELAYED),
        SERVED,
    ),
    Case(
        "deferred",
        "Workers left it to others once: a record has version 2 and flags 0x0; this process knows version 1 and flags "
        "0x3. Upgrade Headrace in this process. It is due in 3.2 s, when a worker looks at it again.",
        found("delayed", State(0, 0, 1), record_bytes=b"\x02" + RECORD[1:], **DELAYED),
        SERVED,
    ),
    Case(
        "lease-lost",
        "Stalled: worker w1 (box, process 7) held it, since 12.3 s, and its lease ran out 1.5 s ago. The next worker "
        "to look takes it back.",
        found("active", hold=HOLD, lease_deadline_ms=NOW - 1_500),
        dataclasses.replace(SERVED, holder="box, process 7"),
    ),
    Case(
        "lease-lost",
        "Stalled: worker w1 held it, and its lease ran out. The next worker to look takes it back. No live worker "
        "serves queue 'mail': start one with `headrace worker module:app -q mail`.",
        found("active", hold=b"7+5+w1", lease_deadline_ms=0),
        ALONE,
    ),
    Case(
        "held",
        "Worker w1 holds it, since 12.3 s, and starts it as soon as a slot is free.",
        found("active", hold=HELD),
        SERVED,
    ),
    Case(
        "running",
        "It runs on worker w1 (box, process 7), since 12.3 s, attempt 3.",
        found("active", hold=HOLD, **TRIED),
        dataclasses.replace(SERVED, holder="box, process 7"),
    ),
    Case(
        "worker-gone",
        "Worker w1 (Box, process 7) holds it, since 12.3 s, and has no connection to the server: it died or is cut "
        "off. Another worker takes the job back when its lease runs out, in 20.0 s.",
        found("active", hold=HOLD),
        dataclasses.replace(SERVED, holder="Box, process 7", gone=True),
    ),
    Case(
        "paused",
        "It waits. Queue 'mail' is paused: resume it with `headrace queues resume mail`.",
        found("waiting", paused=True),
        ALONE,
    ),
    Case(
        "no-worker",
        "It waits behind 1 job of the same or a higher priority. No live worker serves queue 'mail': start one with "
        "`headrace worker module:app -q mail`.",
        found("waiting"),
        dataclasses.replace(ALONE, ahead=1),
    ),
    Case(
        "behind",
        "It waits after 2 attempts (ValueError) behind 1,200 jobs of the same or a higher priority; 2 workers "
        "serve its queue.",
        found("waiting", **TRIED),
        dataclasses.replace(SERVED, ahead=1_200),
    ),
    Case(
        "behind",
        "It waits behind more than 10,000 jobs of the same or a higher priority; 1 worker serves its queue.",
        found("waiting"),
        Surroundings("mail", 10_000, more=True, workers=1),
    ),
    Case(
        "next",
        "It waits, and is the next to run; 2 workers serve its queue, and no slot of theirs is free.",
        found("waiting"),
        SERVED,
    ),
    Case(
        "deferred",
        "It waits. Workers left it to others once: its record cannot be read.",
        found("waiting", State(0, 0, 1), record_bytes=b"garbage"),
        SERVED,
    ),
]


@pytest.mark.parametrize(
    ("code", "text", "facts", "around"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_every_state_has_its_word_and_its_sentence(code: str, text: str, facts: Found, around: Surroundings) -> None:
    reason = explain(facts, around)

    assert (reason.code, reason.text) == (code, text)


def test_only_live_workers_of_the_queue_are_counted() -> None:
    workers = {
        "w1": FACTS,
        "w2": msgspec.structs.replace(FACTS, queues=["bulk", "mail"]),
        "other queue": msgspec.structs.replace(FACTS, queues=["bulk"]),
        "gone": msgspec.structs.replace(FACTS, seen=NOW / 1000 - WORKER_SEEN - 1),
    }

    assert look_around("mail", found("waiting"), workers, (3, True)) == Surroundings("mail", 3, more=True, workers=2)


def test_the_holder_is_named_also_after_it_lost_a_lease() -> None:
    around = look_around("mail", found("active", hold=HOLD + b".2"), {"w1": FACTS})

    assert around.holder == "box, process 7"


@pytest.mark.parametrize(
    ("connected", "gone"), [(None, False), ({"box:7", "box:8"}, False), ({"box:8"}, True), (set(), True)]
)
def test_a_holder_is_gone_when_it_is_known_to_have_no_connection(connected: set[str] | None, *, gone: bool) -> None:
    around = look_around("mail", found("active", hold=HOLD), {"w1": FACTS}, connected=connected)

    assert around.gone is gone
