"""The Redis keys that a test leaves below its prefix: jobs that are not finished, and what is no key of Headrace."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command

if TYPE_CHECKING:
    from headrace.server import PrivateServer

#: Keys that stay for a reason: totals, receipts, results that are kept, dead and cancelled jobs, and what is theirs.
STAY: Final = frozenset({
    "queues", "settings", "budget", "meta", "receipts", "outcomes", "kept", "dead", "cancelled", "errors", "state",
    "progress", "held", "jobs", "wake", "sources", "levels", "ghosts",
})  # fmt: skip
#: What a key that should have gone stands for.
MEANINGS: Final = {
    "wait": "jobs that wait; run, cancel or clear them",
    "delayed": "jobs that are not due yet; run, cancel or clear them",
    "leases": "jobs that a worker holds; stop it first",
    "waiters": "somebody waits for results of jobs that have not ended",
    "uniques": "unique keys of jobs that have not ended",
    "workers": "a worker that did not stop, or was killed",
}
_PART: Final = re.compile(r"(?:\{[^}]*\}:)?(?P<part>[^:]+)")


def take_keys(server: PrivateServer, prefix: str) -> list[str]:
    """Delete all keys below a prefix, and return what should not have been among them, with what it stands for."""
    link = SyncLink(parse_address(server.url), name="headrace.testing")
    try:
        names: list[bytes] = []
        cursor = b"0"
        while True:
            scan = pack_command("SCAN", cursor, "MATCH", f"{prefix}:*", "COUNT", 1_000)
            cursor, page = link.roundtrip(scan, 1, timeout=5.0)[0]
            names += page
            if cursor == b"0":
                break
        left = [text for name in sorted(names) if (text := _describe(name.decode(errors="replace"), prefix, link))]
        if names:
            link.roundtrip(pack_command("UNLINK", *names), 1, timeout=5.0)
        return left
    finally:
        link.close()


def _describe(name: str, prefix: str, link: SyncLink) -> str:
    found = _PART.match(name.removeprefix(f"{prefix}:"))
    part = found["part"] if found else ""
    if part in STAY or (part == "wait" and _holds_ghosts_only(name, link)):
        return ""
    return f"key '{name}': {MEANINGS.get(part, 'no key that outlives its jobs, or none of Headrace')}"


def _holds_ghosts_only(name: str, link: SyncLink) -> bool:
    """Tell whether all jobs in a list were cancelled or cleared, and are skipped when they come up."""
    ghosts = name.rpartition(":wait:")[0] + ":ghosts"
    commands = pack_command("LRANGE", name, "0", "-1") + pack_command("SMEMBERS", ghosts)
    waiting, skipped = link.roundtrip(commands, 2, timeout=5.0)
    return set(waiting) <= set(skipped)
