"""Where else on the same server queues are: below other prefixes, in other databases.

Who finds nothing where it should be has most often another HEADRACE_PREFIX or REDIS_URL than the process that enqueues.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headrace.keys import queues_key
from headrace.pool.cluster_link import ClusterLink
from headrace.resp import pack_command, parse_info

if TYPE_CHECKING:
    from headrace.pool.carrier import Carrier

#: Calls of SCAN, and keys that each looks at: a full server is looked at in part.
ROUNDS: Final = 50
KEYS: Final = 1_000
#: Prefixes and databases that are told.
NAMED: Final = 5

_ANY: Final = queues_key("*")
_SUFFIX: Final = queues_key("")


@dataclass(slots=True)
class Nearby:
    """What else there is on a server.

    Attributes:
        prefixes: Other prefixes below which queues were used, in the same database.
        databases: Number of keys in each other database.
    """

    prefixes: list[str] = field(default_factory=list)
    databases: dict[int, int] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """What a person should look at, one sentence each; empty when there is nothing."""
        found = []
        if self.prefixes:
            quoted = ", ".join(f"'{prefix}'" for prefix in self.prefixes[:NAMED])
            found.append(f"Queues are here below other prefixes: {quoted}. Is HEADRACE_PREFIX the one of the app?")
        if self.databases:
            numbers = ", ".join(f"{number} ({keys} keys)" for number, keys in list(self.databases.items())[:NAMED])
            found.append(
                f"Other databases of this server hold keys: {numbers}. Does REDIS_URL name the one of the app?"
            )
        return found


async def look_nearby(client: Carrier, prefix: str, database: int) -> Nearby:
    """Look for queues below other prefixes and for other databases; what the user may not see is left out.

    Args:
        client: Carries the calls; in a cluster nothing is looked at, as each node knows its own keys only.
        prefix: The own one.
        database: The own one.

    Raises:
        ConnectionLost: The connection broke.
    """
    if isinstance(client, ClusterLink):
        return Nearby()
    found = Nearby(databases=await _other_databases(client, database))
    prefixes: set[str] = set()
    cursor: Any = b"0"
    for _ in range(ROUNDS):
        call = pack_command("SCAN", cursor, "MATCH", _ANY, "COUNT", KEYS, "TYPE", "set")
        (reply,) = await client.roundtrip(call, 1)
        if not isinstance(reply, list):
            break
        cursor, keys = reply
        prefixes.update(key.decode("utf-8", "replace").removesuffix(_SUFFIX) for key in keys)
        if cursor == b"0":
            break
    found.prefixes = sorted(prefixes - {prefix})
    return found


async def _other_databases(client: Carrier, database: int) -> dict[int, int]:
    (reply,) = await client.roundtrip(pack_command("INFO", "keyspace"), 1)
    databases = {}
    for name, value in parse_info(reply).items():
        # Such as `db3:keys=12,expires=0`.
        number, keys = name.removeprefix("db"), value.partition(",")[0].removeprefix("keys=")
        if number.isdecimal() and keys.isdecimal() and int(number) != database:
            databases[int(number)] = int(keys)
    return databases
