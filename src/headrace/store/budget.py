"""The budget of the fleet: how many connections all processes have together, kept in one key, each under a lease."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.keys import budget_key
from headrace.resp import pack_command
from headrace.store.script import PreparedScript, load_scripts

if TYPE_CHECKING:
    from headrace.store.store import Client, Store

#: Limit when the server does not tell how many clients it accepts.
NO_LIMIT: Final = 1_000_000_000
#: Field that holds the sum.
_SUM: Final = b"*"


@dataclass(frozen=True, slots=True)
class Granted:
    """What the budget gave: places, or -1 for none; and what the other processes have."""

    places: int
    others_places: int
    others: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What one process has, until when (ms, the server's clock), and what it says of itself."""

    process: str
    deadline_ms: int
    places: int
    note: bytes


class Budget:
    """Ask for places and give them back.

    Args:
        store: Sends the script; its prefix names the fleet.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = budget_key(store.prefix)
        self._script = PreparedScript(load_scripts()["budget"], [self._key])

    async def ask(
        self,
        client: Client,
        process: str,
        *,
        least: int,
        wanted: int,
        limit: int | None,
        lease: float,
        first: bool = False,
        note: bytes = b"",
    ) -> Granted:
        """Ask for places, or for another lease of those that the process has.

        Args:
            client: Carries the command.
            process: Name of the process.
            least: It keeps so many in any case when it is there already.
            wanted: It wants so many; 0 gives all back.
            limit: Most places of all processes, None for no limit.
            lease: Seconds for which the places are kept, 1..600.
            first: Take nothing when fewer than `least` are left.
            note: What the process says of itself.

        Raises:
            ConnectionLost: The connection broke; whether the places are taken is unknown.
            CommandRefused: The server answered with an error.
        """
        head = (process, least, wanted, NO_LIMIT if limit is None else limit)
        payload = self._script.pack((*head, round(lease * 1000), int(first), note))
        return Granted(*await self._store.call(client, payload, "budget"))

    def pack_goodbye(self, process: str) -> bytes:
        """Pack the call that gives back all that a process has."""
        return self._script.pack((process, 0, 0, NO_LIMIT, 1_000, 0, b""))

    async def claims(self, client: Client) -> list[Claim]:
        """Return what all processes have, those whose lease has run out as well, by name."""
        reply = await self._store.call(client, pack_command("HGETALL", self._key), "HGETALL")
        found: list[Claim] = []
        for name, value in dict(reply).items():
            deadline, _, rest = value.partition(b" ")
            places, _, note = rest.partition(b" ")
            if name != _SUM:
                with contextlib.suppress(ValueError):
                    found.append(Claim(name.decode(), int(deadline), int(places), note))
        return sorted(found, key=lambda claim: claim.process)
