"""Everything that the server holds of the queues below a prefix, and what about it makes no sense.

This is the definition of "no Redis key without a reason": each key is one that `headrace.keys` names, each job is in
exactly one place, and whatever lies beside a job leaves with it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.keys import HIGHEST_PRIORITY
from headrace.store.box import Box, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.support.raw import Raw

LEVELS = range(1, HIGHEST_PRIORITY + 1)
HASHES = ("jobs", "held", "state", "errors", "progress", "outcomes", "waiters", "uniques", "keyed", "meta")
ZSETS = ("levels", "delayed", "leases", "dead", "cancelled", "kept")
SETS = ("ghosts", "cancels")
#: Only in a cluster, and beside the jobs of a queue.
CLUSTER_SETS = ("sources",)
LISTS = ("wake", "receipts", *(f"wait:{level}" for level in LEVELS))
KINDS = {
    **dict.fromkeys(HASHES, "hash"), **dict.fromkeys(ZSETS, "zset"), **dict.fromkeys(SETS, "set"),
    **dict.fromkeys(LISTS, "list"), **dict.fromkeys(CLUSTER_SETS, "set"),
}  # fmt: skip
#: Keys of an app beside those of its queues.
SHARED = {"queues": "set", "workers": "hash", "settings": "hash", "budget": "hash"}
#: Fields of `meta`: the fence, since when the queue is paused, totals, and counts of a minute with that minute.
META = re.compile(r"fence|paused|(m\d+)?(completed|failed|retried|stalled|spent_ms)|m\d+[a-z_]+@")
#: In a cluster: what stands in front of the parts of a box, the dead of a queue that another queue takes.
BOX = re.compile(r"letter:([^:]+):")
HOLD = re.compile(rb"(\d+)([+-])(\d+)([+-])(.+)")


@dataclass
class QueueDump:
    """One queue, read key by key."""

    name: str
    hashes: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    zsets: dict[str, dict[bytes, float]] = field(default_factory=dict)
    sets: dict[str, set[bytes]] = field(default_factory=dict)
    lists: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def jobs(self) -> dict[bytes, bytes]:
        return self.hashes["jobs"]

    def wait(self, level: int) -> list[bytes]:
        return self.lists[f"wait:{level}"]

    def waiting(self) -> list[bytes]:
        """Ids in the order in which they are reserved, without those that are skipped."""
        ghosts = self.sets["ghosts"]
        return [job_id for level in reversed(LEVELS) for job_id in self.wait(level) if job_id not in ghosts]

    def places(self) -> dict[bytes, list[str]]:
        """Where each id is."""
        found: dict[bytes, list[str]] = {}
        groups: list[tuple[str, Iterable[bytes]]] = [("waiting", self.waiting()), ("active", self.hashes["held"])]
        groups += [(name, self.zsets[name]) for name in ("delayed", "dead", "cancelled")]
        groups.append(("completed", self.hashes["outcomes"]))
        for place, ids in groups:
            for job_id in ids:
                found.setdefault(job_id, []).append(place)
        return found


def dump_queue(raw: Raw, prefix: str, name: str) -> QueueDump:
    """Read one queue in one round trip."""
    keys = keys_of(prefix, name)
    commands = [
        *(("HGETALL", keys[part]) for part in HASHES),
        *(("ZRANGE", keys[part], 0, -1, "WITHSCORES") for part in ZSETS),
        *(("SMEMBERS", keys[part]) for part in SETS),
        *(("LRANGE", keys._key(part), 0, -1) for part in LISTS),
    ]
    replies = iter(raw.many(commands))
    dump = QueueDump(
        name,
        hashes={part: dict(next(replies)) for part in HASHES},
        zsets={part: {member: float(score) for member, score in next(replies)} for part in ZSETS},
        sets={part: set(next(replies)) for part in SETS},
        lists={part: list(next(replies)) for part in LISTS},
    )
    # A field without an id keeps the hash in a form that is fast to change; it holds nothing.
    dump.hashes["held"].pop(b"", None)
    return dump


def queue_problems(dump: QueueDump) -> list[str]:
    """Say what about one queue cannot be."""
    found = [*_place_problems(dump), *_stray_problems(dump), *_hold_problems(dump)]
    used = {str(level).encode() for level in LEVELS if dump.wait(level)}
    found += [f"level {level!r} has jobs and is not in levels" for level in used - dump.zsets["levels"].keys()]
    found += [f"meta has a field {name!r}" for name in dump.hashes["meta"] if not META.fullmatch(name.decode())]
    if len(dump.lists["wake"]) > 1:
        found.append("there is more than one wake token")
    return [f"queue {dump.name}: {line}" for line in found]


def _place_problems(dump: QueueDump) -> Iterator[str]:
    """Each job is in exactly one place, and has a record there unless it has completed."""
    jobs, places = dump.jobs, dump.places()
    for job_id, where in places.items():
        if len(where) != 1:
            yield f"{job_id!r} is in several places: {where}"
        if (job_id in jobs) != (where != ["completed"]):
            yield f"{job_id!r} is {where} and {'has' if job_id in jobs else 'lacks'} a record"
    yield from (f"{job_id!r} has a record and is in no place" for job_id in jobs.keys() - places.keys())
    listed = Counter(job_id for level in LEVELS for job_id in dump.wait(level))
    yield from (f"{job_id!r} stands {count} times in the lists" for job_id, count in listed.items() if count > 1)


def _stray_problems(dump: QueueDump) -> Iterator[str]:
    """What lies beside a job leaves with it."""
    jobs, zsets, hashes = dump.jobs.keys(), dump.zsets, dump.hashes
    listed = {job_id for level in LEVELS for job_id in dump.wait(level)}
    pending = jobs - zsets["dead"].keys() - zsets["cancelled"].keys()
    allowed: list[tuple[str, Iterable[bytes], Iterable[bytes]]] = [
        ("ghosts", dump.sets["ghosts"], listed & (zsets["cancelled"].keys() | (listed - jobs))),
        *((part, hashes[part], jobs) for part in ("state", "errors", "progress", "waiters")),
        ("cancels", dump.sets["cancels"], hashes["held"]),
        ("uniques", hashes["uniques"].values(), pending),
        ("keyed", hashes["keyed"], hashes["uniques"].values()),
        ("uniques", hashes["uniques"], hashes["keyed"].values()),
        ("kept", zsets["kept"], hashes["outcomes"]),
        ("outcomes", hashes["outcomes"], zsets["kept"]),
    ]
    for what, ids, within in allowed:
        yield from (f"{job_id!r} is in {what} without a reason" for job_id in sorted(set(ids) - set(within)))


def _hold_problems(dump: QueueDump) -> Iterator[str]:
    for job_id, hold in dump.hashes["held"].items():
        read = HOLD.fullmatch(hold)
        if read is None or read[2] != read[4]:
            yield f"{job_id!r} has a malformed hold {hold!r}"
        elif read[5] not in dump.zsets["leases"]:
            yield f"{job_id!r} is held by {read[5]!r}, which has no lease: nobody would take it back"


def read_keys(raw: Raw, prefix: str = "") -> dict[str, str]:
    """Return the type of each key."""
    names = raw.keys(prefix)
    return dict(zip(names, (kind.decode() for kind in raw.many([("TYPE", name) for name in names])), strict=True))


def key_problems(keys: Mapping[str, str], prefix: str) -> list[str]:
    """Say which keys are not in the list of `headrace.keys`, or have another type."""
    found = []
    for name, kind in keys.items():
        rest = name.removeprefix(f"{prefix}:")
        part = BOX.sub("", rest.partition("}:")[2], count=1) if rest.startswith("{") else ""
        expected = "list" if part.startswith(("log:", "wake:")) else KINDS.get(part) if part else SHARED.get(rest)
        if expected != kind:
            found.append(f"key {name!r} is a {kind}: expected {expected or 'no such key'}")
    return found


def problems(raw: Raw, prefix: str) -> list[str]:
    """Say everything that is wrong below a prefix; an empty list is what a test wants."""
    keys = read_keys(raw, f"{prefix}:")
    found = key_problems(keys, prefix)
    queues = {name.partition(":{")[2].partition("}")[0] for name in keys if ":{" in name}
    for name in keys:
        if box := re.search(rf"{{(.+)}}:{BOX.pattern}", name):
            queues.add(Box(box[2], box[1]))
    for queue in sorted(queues):
        found += queue_problems(dump_queue(raw, prefix, queue))
    return found
