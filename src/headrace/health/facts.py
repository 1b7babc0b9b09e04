"""What a server says about itself: the fields of INFO, and those of its states in which a queue cannot work.

Pure: replies go in, findings come out. A field that a server does not have, or does not show to this user, is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.health.verdict import Finding, Status
from headrace.resp import parse_info

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Words of a refused or failed call, what they mean, and what to do; the first that is found counts.
TROUBLES: Final = (
    (
        "LOADING",
        "the server is loading its data and answers nothing until it is done",
        "Wait. If it takes minutes at each restart, keep fewer finished jobs, or add a replica to fail over to.",
    ),
    (
        "max number of clients",
        "the server is at maxclients and refuses new connections",
        "Close connections that nobody needs (CLIENT LIST), lower REDIS_MAX_CONNECTIONS, or raise maxclients.",
    ),
    (
        "MASTERDOWN",
        "the server is a replica that has lost its primary",
        "Wait for the failover to end, or point REDIS_URL to the primary.",
    ),
    (
        "BUSY",
        "the server is busy with a script that does not end",
        "End the script with SCRIPT KILL (FUNCTION KILL for a function), and find who runs it.",
    ),
    (
        "CLUSTERDOWN",
        "the cluster is down: some of its slots have no primary",
        "Wait for the failover to end; otherwise repair the cluster (CLUSTER INFO).",
    ),
    (
        "NOAUTH",
        "the server wants a login",
        "Put the user and the password into REDIS_URL.",
    ),
    (
        "WRONGPASS",
        "the server refuses the login",
        "Correct the user and the password in REDIS_URL.",
    ),
    (
        "READONLY",
        "the server is a read-only replica and refuses writes",
        "Wait for the failover to end, or point REDIS_URL to the primary.",
    ),
    (
        "OOM",
        "the server is out of memory and refuses writes",
        "Free memory (`headrace queues clear`), or raise maxmemory.",
    ),
)


class Facts:
    r"""The fields of one INFO.

    Example:
        >>> facts = Facts(b"# Memory\r\nused_memory:10\r\nmaxmemory_policy:noeviction\r\n")
        >>> facts.number("used_memory"), facts.text("maxmemory_policy"), facts.number("maxmemory")
        (10.0, 'noeviction', None)
    """

    def __init__(self, reply: bytes | str | Mapping[str, str]) -> None:
        self.fields: Mapping[str, str] = parse_info(reply) if isinstance(reply, (bytes, str)) else reply

    def text(self, name: str) -> str | None:
        """Return a field, None when it is not there."""
        return self.fields.get(name)

    def number(self, name: str) -> float | None:
        """Return a field as a number, None when it is not there or is none."""
        try:
            return float(self.fields[name])
        except (KeyError, ValueError):
            return None

    @property
    def server_time(self) -> float | None:
        """The server's clock when it answered, seconds since 1970."""
        micros = self.number("server_time_usec")
        return None if micros is None else micros / 1_000_000

    @property
    def worked(self) -> float | None:
        """Seconds that the server has worked since its start: by the time of its loop, else by its processor time."""
        micros = self.number("eventloop_duration_sum")
        if micros is not None:
            return micros / 1_000_000
        parts = [self.number(f"used_cpu_{part}_main_thread") for part in ("sys", "user")]
        return None if None in parts else sum(part or 0.0 for part in parts)

    @property
    def replicas(self) -> list[dict[str, str]]:
        """What a primary says of each of its replicas."""
        lines = [value for name, value in self.fields.items() if name.startswith("slave") and name[5:].isdecimal()]
        return [dict(part.split("=", 1) for part in line.split(",") if "=" in part) for line in lines]


def used_memory(facts: Facts) -> float | None:
    """Return the bytes that count against maxmemory."""
    used = facts.number("used_memory")
    return None if used is None else used - (facts.number("mem_not_counted_for_evict") or 0.0)


def read_states(facts: Facts, before: Facts | None) -> list[Finding]:
    """Find the states in which the server cannot serve a queue, or soon will not.

    Args:
        facts: The latest INFO.
        before: The one before it, None for none.
    """
    found: list[Finding] = []
    if facts.text("loading") == "1":
        left = facts.number("loading_eta_seconds")
        rest = "" if left is None else f" for about {left:.0f} s more"
        found.append(_bad(f"the server is loading its data{rest}", TROUBLES[0][2]))
    found += _read_role(facts)
    found += _read_pause(facts)
    found += _read_refusals(facts)
    found += _read_clients(facts, before)
    return found


def explain(text: str, facts: Facts | None = None) -> Finding:
    """Turn what the server or the system answered in place of a reply into a finding.

    Args:
        text: The answer, or what an attempt to open a connection ended with.
        facts: The latest INFO, None without any.

    Example:
        >>> explain("LOADING Redis is loading the dataset in memory").reason[:45]
        'the server is loading its data and answers no'
    """
    for word, reason, remedy in TROUBLES:
        if word in text:
            return _bad(f"{reason} ({_short(text)})", remedy)
    if facts is not None and _is_full(facts) and "broke" in text:
        # Why: the server says so and closes at once, and the system often drops what it said.
        return _bad(f"{TROUBLES[1][1]} (they break at once, and at the last look it was full)", TROUBLES[1][2])
    return _bad(
        f"the server cannot be reached: {_short(text)}", "Check that the server runs and that REDIS_URL names it."
    )


def _read_role(facts: Facts) -> list[Finding]:
    state = facts.text("master_failover_state")
    if state not in (None, "no-failover"):
        return [_bad(f"the server is failing over ({state})", "Wait: it ends by itself.")]
    if facts.text("role") != "slave":
        return []
    primary = f"{facts.text('master_host')}:{facts.text('master_port')}"
    link = facts.text("master_link_status")
    if facts.text("slave_read_only") == "0":
        return []
    if link != "up":
        return [
            _bad(
                f"the server is a read-only replica that has lost its primary {primary}: a failover may be under way",
                TROUBLES[2][2],
            )
        ]
    return [_bad(f"the server is a read-only replica of {primary} and refuses writes", TROUBLES[7][2])]


def _read_pause(facts: Facts) -> list[Finding]:
    actions = facts.text("paused_actions")
    if actions in (None, "none"):
        return []
    left = (facts.number("paused_timeout_milliseconds") or 0.0) / 1000
    why = facts.text("paused_reason") or "not said"
    return [
        _bad(
            f"the server has paused its clients ({actions}, reason {why}) for {left:.1f} s more",
            "Wait, or end it with CLIENT UNPAUSE.",
        )
    ]


def _read_refusals(facts: Facts) -> list[Finding]:
    found = []
    used, maximum = used_memory(facts), facts.number("maxmemory")
    if used is not None and maximum and used >= maximum and facts.text("maxmemory_policy") == "noeviction":
        figures = f"{used / 2**20:.1f} MB used of {maximum / 2**20:.1f} MB"
        found.append(_bad(f"the server is out of memory and refuses writes: {figures}", TROUBLES[8][2]))
    if facts.text("aof_last_write_status") == "err":
        found.append(
            _bad(
                "the server cannot write its append-only file and refuses writes",
                "Look at the server's disk: full, read-only or failing.",
            )
        )
    if facts.text("rdb_last_bgsave_status") == "err":
        found.append(
            Finding(
                Status.DEGRADED,
                "the server's last snapshot failed; it refuses writes if stop-writes-on-bgsave-error is on",
                "Look at the server's log and disk, then run BGSAVE.",
            )
        )
    return found


def _read_clients(facts: Facts, before: Facts | None) -> list[Finding]:
    connected, maximum = facts.number("connected_clients"), facts.number("maxclients")
    refused = facts.number("rejected_connections") or 0.0
    fresh = 0.0 if before is None else refused - (before.number("rejected_connections") or 0.0)
    if not _is_full(facts) and fresh <= 0:
        return []
    text = f"the server is at maxclients: {connected or 0:.0f} connections of {maximum or 0:.0f}"
    if fresh > 0:
        text += f", {fresh:.0f} refused since the last look"
    return [Finding(Status.DEGRADED, text, TROUBLES[1][2])]


def _is_full(facts: Facts) -> bool:
    connected, maximum = facts.number("connected_clients"), facts.number("maxclients")
    return connected is not None and maximum is not None and connected >= maximum


def _bad(reason: str, remedy: str) -> Finding:
    return Finding(Status.UNHEALTHY, reason, remedy)


def _short(text: str) -> str:
    return text.rstrip(". ")[:300]
