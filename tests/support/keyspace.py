"""Everything that the server holds of the queues below a prefix, and what about it makes no sense.

This is the definition of "no Redis key without a reason": each key is one that `headrace.keys` names, each job is in
exactly one place, and whatever lies beside a job leaves with it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis

from headrace.keys import HIGHEST_PRIORITY, QueueKeys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LEVELS = range(1, HIGHEST_PRIORITY + 1)
HASHES = ("jobs", "held", "state", "errors", "progress", "outcomes", "waiters", "uniques", "keyed", "meta")
ZSETS = ("levels", "delayed", "leases", "dead", "cancelled", "kept")
SETS = ("ghosts", "cancels")
LISTS = ("wake", "receipts", *(f"wait:{level}" for level in LEVELS))
KINDS = {
    **dict.fromkeys(HASHES, "hash"), **dict.fromkeys(ZSETS, "zset"), **dict.fromkeys(SETS, "set"),
    **dict.fromkeys(LISTS, "list"),
}  # fmt: skip
#: Keys of an app beside those of its queues.
SHARED = {"queues": "set", "workers": "hash"}
#: Fields of `meta`: the fence, since when the queue is paused, totals, and counts of a minute with the minute they are of.
META = re.compile(r"fence|paused|(m\d+)?(completed|failed|retried|stalled|spent_ms)|m\d+[a-z_]+@")
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


def dump_queue(client: redis.Redis[bytes], prefix: str, name: str) -> QueueDump:
    """Read one queue in one round trip."""
    keys = QueueKeys(prefix, name)
    pipe = client.pipeline(transaction=True)
    for part in HASHES:
        pipe.hgetall(keys[part])
    for part in ZSETS:
        pipe.zrange(keys[part], 0, -1, withscores=True)
    for part in SETS:
        pipe.smembers(keys[part])
    for part in LISTS:
        pipe.lrange(keys._key(part), 0, -1)
    replies: list[Any] = pipe.execute()
    dump = QueueDump(name)
    dump.hashes = dict(zip(HASHES, replies, strict=False))
    at = len(HASHES)
    dump.zsets = {part: {pair[0]: float(pair[1]) for pair in replies[at + i]} for i, part in enumerate(ZSETS)}
    at += len(ZSETS)
    dump.sets = {part: set(replies[at + i]) for i, part in enumerate(SETS)}
    at += len(SETS)
    dump.lists = dict(zip(LISTS, replies[at:], strict=True))
    return dump


def queue_problems(dump: QueueDump) -> list[str]:
    """Say what about one queue cannot be."""
    found: list[str] = []
    jobs, places, held = dump.jobs, dump.places(), dump.hashes["held"]

    def expect(what: str, ids: Iterable[bytes], within: Iterable[bytes]) -> None:
        extra = set(ids) - set(within)
        found.extend(f"{job_id!r} is in {what} without a reason" for job_id in sorted(extra))

    for job_id, where in places.items():
        if len(where) != 1:
            found.append(f"{job_id!r} is in several places: {where}")
        if (job_id in jobs) != (where != ["completed"]):
            found.append(f"{job_id!r} is {where} and {'has' if job_id in jobs else 'lacks'} a record")
    found += [f"{job_id!r} has a record and is in no place" for job_id in jobs.keys() - places.keys()]
    listed = Counter(job_id for level in LEVELS for job_id in dump.wait(level))
    found += [f"{job_id!r} stands {count} times in the lists" for job_id, count in listed.items() if count > 1]
    expect("ghosts", dump.sets["ghosts"], listed)
    expect("ghosts", dump.sets["ghosts"], dump.zsets["cancelled"].keys() | (listed.keys() - jobs.keys()))
    for part in ("state", "errors", "progress", "waiters"):
        expect(part, dump.hashes[part], jobs)
    expect("cancels", dump.sets["cancels"], held)
    expect("uniques", dump.hashes["uniques"].values(), jobs.keys() - dump.zsets["dead"].keys() - dump.zsets["cancelled"].keys())
    if dump.hashes["keyed"] != {job_id: key for key, job_id in dump.hashes["uniques"].items()}:
        found.append(f"keyed is not the other way round of uniques: {dump.hashes['keyed']}")
    expect("kept", dump.zsets["kept"], dump.hashes["outcomes"])
    expect("outcomes", dump.hashes["outcomes"], dump.zsets["kept"])
    used = {str(level).encode() for level in LEVELS if dump.wait(level)}
    found += [f"level {level!r} has jobs and is not in levels" for level in used - dump.zsets["levels"].keys()]
    for job_id, hold in held.items():
        read = HOLD.fullmatch(hold)
        if read is None or read[2] != read[4]:
            found.append(f"{job_id!r} has a malformed hold {hold!r}")
        elif read[5] not in dump.zsets["leases"]:
            found.append(f"{job_id!r} is held by {read[5]!r}, which has no lease: nobody would take it back")
    found += [f"meta has a field {name!r}" for name in dump.hashes["meta"] if not META.fullmatch(name.decode())]
    if len(dump.lists["wake"]) > 1:
        found.append("there is more than one wake token")
    return [f"queue {dump.name}: {line}" for line in found]


def read_keys(client: redis.Redis[bytes], prefix: str = "") -> dict[str, str]:
    """Return the type of each key."""
    names = [name.decode() for name in client.scan_iter(match=f"{prefix}*", count=1000)]
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
    return dict(zip(names, (kind.decode() for kind in pipe.execute()), strict=True))


def key_problems(keys: Mapping[str, str], prefix: str) -> list[str]:
    """Say which keys are not in the list of `headrace.keys`, or have another type."""
    found = []
    for name, kind in keys.items():
        rest = name.removeprefix(f"{prefix}:")
        part = rest.partition("}:")[2] if rest.startswith("{") else ""
        expected = "list" if part.startswith("log:") else KINDS.get(part) if part else SHARED.get(rest)
        if expected != kind:
            found.append(f"key {name!r} is a {kind}: expected {expected or 'no such key'}")
    return found


def problems(client: redis.Redis[bytes], prefix: str) -> list[str]:
    """Say everything that is wrong below a prefix; an empty list is what a test wants."""
    keys = read_keys(client, f"{prefix}:")
    found = key_problems(keys, prefix)
    queues = {name.partition(":{")[2].partition("}")[0] for name in keys if ":{" in name}
    for queue in sorted(queues):
        found += queue_problems(dump_queue(client, prefix, queue))
    return found
