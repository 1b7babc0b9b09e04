"""Safety checks of the server: what is set or happening there that may lose jobs, or stop a queue later on.

Pure: each check reads facts that were fetched before and says what it found, what that means for the queues, and what
to do. What a server does not show to this user is `unknown`, never guessed. `QUESTIONS` is all that is asked of the
server beside INFO; none of it writes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from headrace.errors import ServerTooOld
from headrace.health.facts import Facts, used_memory
from headrace.health.verdict import Check, CheckStatus, Finding, Status
from headrace.resp import pack_command, parse_config
from headrace.server import check_server_version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Time (since 1970), seconds and command of slow commands.
SlowCommands: TypeAlias = tuple[tuple[float, float, str], ...]

OK, WARN, BAD, UNKNOWN = CheckStatus.OK, CheckStatus.WARN, CheckStatus.BAD, CheckStatus.UNKNOWN

#: Entries of the slow log that are looked at, and how old they may be, seconds.
SLOW_ENTRIES: Final = 16
SLOW_AGE: Final = 600.0
SLOW_WARN: Final = 0.1
#: Parts of a maximum.
CLIENTS_WARN, CLIENTS_BAD = 0.8, 0.95
MEMORY_WARN, MEMORY_BAD = 0.75, 0.9
BLOCKED_WARN: Final = 0.5
#: A replica further behind than this loses that much in a failover.
LAG_WARN: Final = 10.0
LAG_WARN_BYTES: Final = 16 * 2**20
SKEW_WARN: Final = 1.0
SKEW_BAD: Final = 60.0
#: A snapshot older than this with changes since is late, seconds.
SNAPSHOT_WARN: Final = 3_600.0

#: Asked beside INFO in one round trip. Single names, since a server before 7.0 takes only one.
QUESTIONS: Final = (
    ("CONFIG", "GET", "save"),
    ("CONFIG", "GET", "appendfsync"),
    ("SLOWLOG", "GET", SLOW_ENTRIES),
)
PACKED_QUESTIONS: Final = b"".join(pack_command(*words) for words in QUESTIONS)


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that the checks read.

    Attributes:
        facts: The latest INFO.
        save: The server's `save` rules; None when it does not say.
        fsync: Its `appendfsync`; None when it does not say.
        slow: Time (since 1970), seconds and command of slow commands; None when the log may not be read.
        skew: Seconds by which the server's clock is ahead of ours; None when unknown.
        skew_error: How far that may be wrong, seconds.
    """

    facts: Facts
    save: str | None = None
    fsync: str | None = None
    slow: SlowCommands | None = None
    skew: float | None = None
    skew_error: float = 0.0


def parse_answers(answers: Sequence[Any]) -> tuple[str | None, str | None, SlowCommands | None]:
    """Read the replies to `QUESTIONS`: save, appendfsync, and the slow log; None for each that was refused."""
    save, fsync, slow = answers
    return parse_config(save), parse_config(fsync), _slow(slow)


def run_checks(seen: Seen) -> tuple[Check, ...]:
    """Run every check."""
    return tuple(check(seen) for check in CHECKS)


def judge(checks: Sequence[Check]) -> list[Finding]:
    """Turn the checks that are bad into findings."""
    return [
        Finding(Status.DEGRADED, f"{check.name}: {check.measured}. {check.meaning}", check.remedy)
        for check in checks
        if check.status is BAD
    ]


def check_eviction(seen: Seen) -> Check:
    """Look for a server that throws keys away when it is full."""
    facts = seen.facts
    policy, maximum = facts.text("maxmemory_policy"), facts.number("maxmemory")
    evicted = facts.number("evicted_keys") or 0.0
    status = OK
    if policy is None:
        status = UNKNOWN
    elif policy != "noeviction":
        status = BAD if maximum or evicted else WARN
    limit = "no maxmemory set" if maximum == 0 else f"maxmemory {_megabytes(maximum)}"
    measured = f"{policy or 'not shown'}, {limit}, {evicted:.0f} keys evicted since its start"
    return Check(
        "eviction policy", status, measured, "maxmemory-policy noeviction",
        "Under any other policy a full server deletes keys, and jobs are lost without a trace.",
        "Set maxmemory-policy noeviction.",
    )  # fmt: skip


def check_persistence(seen: Seen) -> Check:
    """Look whether jobs outlive a restart of the server."""
    facts = seen.facts
    aof, snapshots = facts.text("aof_enabled"), seen.save
    saved_at, changes = facts.number("rdb_last_save_time"), facts.number("rdb_changes_since_last_save")
    age = None if saved_at is None else max(0.0, (facts.server_time or time.time()) - saved_at)
    last = "" if age is None else f", last snapshot or start {age:.0f} s ago, {changes or 0:.0f} changes since"
    failing = [
        name
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        if facts.text(name) not in (None, "ok")
    ]
    if aof is None:
        status, measured = UNKNOWN, "not shown"
    elif failing:
        status, measured = BAD, f"failing: {', '.join(failing)}"
    elif aof == "1":
        status, measured = (WARN if seen.fsync == "no" else OK), f"append-only file, fsync {seen.fsync or 'not shown'}"
    elif snapshots == "":
        status, measured = BAD, "off: neither append-only file nor snapshots"
    else:
        status = WARN
        measured = f"snapshots only ({'rules not shown' if snapshots is None else 'save ' + snapshots}){last}"
        if age is not None and age > SNAPSHOT_WARN and changes:
            measured += ", late"
    return Check(
        "persistence", status, measured, "append-only file on, its last write and rewrite ok",
        "Without the append-only file a restart loses the jobs accepted since the last snapshot, or all of them.",
        "Set appendonly yes and appendfsync everysec; where something fails, look at the server's disk and log.",
    )  # fmt: skip


def check_replication(seen: Seen) -> Check:
    """Look how far replicas are behind."""
    facts = seen.facts
    role = facts.text("role")
    status, measured = OK, "no replica"
    if role is None:
        status, measured = UNKNOWN, "not shown"
    elif role == "slave":
        link = facts.text("master_link_status")
        status = OK if link == "up" else BAD
        measured = f"a replica, link to its primary {link}"
    elif facts.replicas:
        offset = facts.number("master_repl_offset") or 0.0
        lag = max(float(replica.get("lag", 0) or 0) for replica in facts.replicas)
        behind = max(offset - float(replica.get("offset", offset)) for replica in facts.replicas)
        away = [replica for replica in facts.replicas if replica.get("state") != "online"]
        measured = f"{len(facts.replicas)} replicas, {lag:.0f} s and {_megabytes(behind)} behind at most"
        if lag > LAG_WARN or behind > LAG_WARN_BYTES or away:
            status = WARN
            measured += f", {len(away)} not online" if away else ""
    return Check(
        "replication", status, measured, f"at most {LAG_WARN:.0f} s and {_megabytes(LAG_WARN_BYTES)} behind",
        "What a replica has not got is lost in a failover: those jobs are gone, or run a second time.",
        "Look at the network and disk of the replica; min-replicas-to-write bounds what can be lost.",
    )  # fmt: skip


def check_clients(seen: Seen) -> Check:
    """Look how many connections are left."""
    facts = seen.facts
    connected, maximum = facts.number("connected_clients"), facts.number("maxclients")
    refused = facts.number("rejected_connections") or 0.0
    status = UNKNOWN
    if connected is not None and maximum:
        share = connected / maximum
        status = BAD if share >= CLIENTS_BAD else WARN if share >= CLIENTS_WARN else OK
    measured = f"{_whole(connected)} of {_whole(maximum)} connections, {refused:.0f} refused since its start"
    return Check(
        "clients", status, measured, f"under {CLIENTS_WARN:.0%} of maxclients",
        "At maxclients the server refuses new connections: workers cannot start, or come back after a break.",
        "Lower REDIS_MAX_CONNECTIONS, close what nobody needs (CLIENT LIST), or raise maxclients.",
    )  # fmt: skip


def check_memory(seen: Seen) -> Check:
    """Look how much memory is left."""
    facts = seen.facts
    used, maximum = used_memory(facts), facts.number("maxmemory")
    total = facts.number("total_system_memory")
    limit, name = (maximum, "maxmemory") if maximum else (total, "the machine's memory, as maxmemory is not set")
    status = UNKNOWN
    if used is not None and limit:
        share = used / limit
        status = (BAD if maximum else WARN) if share >= MEMORY_BAD else WARN if share >= MEMORY_WARN else OK
    share_text = f" ({used / limit:.0%})" if used is not None and limit else ""
    return Check(
        "memory", status, f"{_megabytes(used)} of {_megabytes(limit)}{share_text}, {name}", f"under {MEMORY_WARN:.0%}",
        "A full server refuses to enqueue and to record outcomes; without maxmemory the system may kill it.",
        "Raise maxmemory, or keep less (HEADRACE_KEEP_FINISHED_COUNT, HEADRACE_KEEP_DEAD_COUNT).",
    )  # fmt: skip


def check_slow_log(seen: Seen) -> Check:
    """Look for commands that made everybody wait."""
    now = seen.facts.server_time or time.time()
    status, measured = OK, "nothing"
    if seen.slow is None:
        status, measured = UNKNOWN, "may not be read"
    else:
        fresh = [entry for entry in seen.slow if now - entry[0] <= SLOW_AGE]
        if fresh:
            _, longest, command = max(fresh, key=lambda entry: entry[1])
            measured = (
                f"{len(fresh)} commands in {SLOW_AGE / 60:.0f} min, the longest {longest * 1000:.0f} ms ({command})"
            )
            status = WARN if longest >= SLOW_WARN else OK
    return Check(
        "slow log", status, measured, f"none above {SLOW_WARN * 1000:.0f} ms in {SLOW_AGE / 60:.0f} min",
        "The server does one thing at a time: while a slow command runs, every worker waits.",
        "Find who sends it (SLOWLOG GET) and let it do less at once: SCAN for KEYS, shorter ranges, no long scripts.",
    )  # fmt: skip


def check_version(seen: Seen) -> Check:
    """Look whether the server is new enough."""
    facts = seen.facts
    product = "Valkey" if facts.text("valkey_version") else "Redis"
    version = facts.text("valkey_version") or facts.text("redis_version")
    status, measured = OK, f"{product} {version}"
    if version is None:
        status, measured = UNKNOWN, "not shown"
    else:
        try:
            check_server_version(facts.fields)
        except ServerTooOld as error:
            status, measured = BAD, f"{product} {version}, needs {error.needed}"
    return Check(
        "version", status, measured, "Redis 6.2, Valkey 7.2, or later",
        "An older server lacks commands that the scripts of the queues call.",
        "Upgrade the server.",
    )  # fmt: skip


def check_skew(seen: Seen) -> Check:
    """Compare the server's clock with ours."""
    status, measured = UNKNOWN, "the server does not tell its time"
    if seen.skew is not None:
        least = abs(seen.skew) - seen.skew_error
        status = BAD if least > SKEW_BAD else WARN if least > SKEW_WARN else OK
        way = "ahead of" if seen.skew >= 0 else "behind"
        measured = f"the server is {abs(seen.skew):.3f} s {way} this machine, within {seen.skew_error:.3f} s"
    return Check(
        "clock skew", status, measured, f"at most {SKEW_WARN:.0f} s",
        "Jobs become due by the server's clock; a time of day that this machine computed is off by so much.",
        "Let both machines set their clocks by NTP.",
    )  # fmt: skip


def check_blocked(seen: Seen) -> Check:
    """Count the connections that block."""
    facts = seen.facts
    blocked, maximum = facts.number("blocked_clients"), facts.number("maxclients")
    status = UNKNOWN
    if blocked is not None:
        status = WARN if maximum and blocked > BLOCKED_WARN * maximum else OK
    return Check(
        "blocked clients", status, f"connections that wait in a blocking command: {_whole(blocked)}",
        f"at most {BLOCKED_WARN:.0%} of maxclients",
        "An idle worker is one blocked connection; many more than there are workers belong to something else.",
        "Compare with the number of workers; CLIENT LIST names the others.",
    )  # fmt: skip


#: In the order in which they are shown.
CHECKS: Final[tuple[Callable[[Seen], Check], ...]] = (
    check_eviction, check_persistence, check_replication, check_clients, check_memory, check_slow_log, check_version,
    check_skew, check_blocked,
)  # fmt: skip


def _slow(reply: Any) -> SlowCommands | None:
    if not isinstance(reply, list):
        return None
    # Why the first word alone: arguments may be private.
    return tuple(
        (float(entry[1]), float(entry[2]) / 1_000_000, bytes(entry[3][0]).decode(errors="replace")[:40])
        for entry in reply[:SLOW_ENTRIES]
    )


def _megabytes(count: float | None) -> str:
    return "not shown" if count is None else f"{count / 2**20:.1f} MB"


def _whole(count: float | None) -> str:
    return "not shown" if count is None else f"{count:.0f}"
