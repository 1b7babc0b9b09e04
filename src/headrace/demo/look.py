"""What the demonstration reads from its server beyond the queues: runs, holds, memory; and how it leaves it clean."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.demo.app import QUEUES, Run, app, run_log_key
from headrace.pool.link import Lane
from headrace.resp import pack_command, parse_info
from headrace.store.replies import is_started, refuse

if TYPE_CHECKING:
    from headrace.pool.carrier import Carrier

#: Entries of the run log, and keys, in one round trip.
PAGE: Final = 5_000
#: With more clients on the server than this, they are not listed only to show who holds how many connections.
LISTED_CLIENTS: Final = 100


class Look:
    """Ask the server of the open app."""

    def __init__(self) -> None:
        self._link: Carrier = app.links.link(Lane.USER, "look", owner="demo")
        self._prefix = app.settings.prefix

    async def holds(self, worker: str) -> dict[str, bool]:
        """Return the ids of the jobs that a worker holds, and whether the server knows that it has started them."""
        found: dict[str, bool] = {}
        # Why: after a kill the server may have requests of the dead worker left to read; not after one more answer.
        await self._ask("PING")
        for queue in QUEUES:
            # On a machine that is too busy for the lease a worker loses it, and goes on under a further name.
            for name in (worker, f"{worker}.1", f"{worker}.2"):
                holds = await app.store.mine(self._link, queue, name)
                found.update((job.decode(), is_started(hold)) for job, hold in holds.items())
        return found

    async def runs(self) -> list[Run]:
        """Return the run log."""
        runs: list[Run] = []
        while page := await self._ask("LRANGE", run_log_key(self._prefix), len(runs), len(runs) + PAGE - 1):
            runs += (msgspec.msgpack.decode(entry, type=Run) for entry in page)
        return runs

    async def facts(self) -> dict[str, str]:
        """Return what the server says of itself in the sections server, memory and clients."""
        return parse_info(await self._ask("INFO", "server", "memory", "clients"))

    async def connections(self, clients: int) -> dict[int, int]:
        """Return how many connections each process of an app holds; empty on a server with many other clients."""
        if clients > LISTED_CLIENTS:
            return {}
        counts: Counter[int] = Counter()
        for line in _text(await self._ask("CLIENT", "LIST")).splitlines():
            name = next((word[5:] for word in line.split(" ") if word.startswith("name=headrace:")), "")
            pid = name.split(":")[2:3]
            if pid and pid[0].isdigit():
                counts[int(pid[0])] += 1
        return dict(counts)

    async def delete_keys(self) -> int:
        """Delete every key of this demonstration, and no other; returns how many."""
        cursor, deleted = "0", 0
        while True:
            page, keys = await self._ask("SCAN", cursor, "MATCH", f"{self._prefix}:*", "COUNT", PAGE)
            if keys:
                deleted += await self._ask("UNLINK", *keys)
            cursor = page.decode()
            if cursor == "0":
                return deleted

    async def _ask(self, *command: str | bytes | int) -> Any:
        (reply,) = await self._link.roundtrip(pack_command(*command), 1)
        refuse(reply, str(command[0]), str(self._link.address))
        return reply


def describe_server(facts: dict[str, str]) -> str:
    """Name a server: product and version."""
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', '?')}"


def _text(reply: Any) -> str:
    return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
