"""What the server and the fleet say: clients connected and accepted, and what each process uses connections for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from headrace.errors import CommandRefused
from headrace.ids import processes_of
from headrace.resp import pack_command, parse_config, parse_info
from headrace.sizing.demand import Demand, Member, ServerFacts, head_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headrace.pool.figures import PoolStats
    from headrace.store.budget import Budget, Claim
    from headrace.store.replies import WorkerFacts
    from headrace.store.store import Client, Store

#: A worker that was not seen for so long is not counted any more, seconds; it says each minute that it is there.
UNSEEN: float = 150.0

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Demand)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The server and the other processes at one moment.

    Attributes:
        server: What the server says.
        members: The other processes in the budget.
        strangers: Processes with workers that are in the registry and not in the budget.
        places: Connections that all members may open together.
    """

    server: ServerFacts
    members: tuple[Member, ...]
    strangers: int

    @property
    def places(self) -> int:
        """Connections that all members may open together."""
        return sum(member.places for member in self.members)


def measure_borrowed(stats: PoolStats) -> int | None:
    """Return how many connections clients want at once, from the figures of the last minute or two; None without any.

    It is the larger of what is in use now and of Little's law with head room, and those that had to wait come on top.
    """
    lane = stats.lanes.get("user")
    if lane is None or stats.wait.count == 0:
        return None
    # The figures cover one to two minutes, so that the rate is at most this; a lane never lends more than its share.
    mean = stats.wait.count / 60.0 * stats.response.mean
    return max(lane.active - 1, min(head_room(mean), lane.share), 0) + lane.waiting_highest


def encode_demand(demand: Demand) -> bytes:
    """Return the note of a process in the budget.

    Example:
        >>> encode_demand(Demand(workers=1, slots=5))
        b'{"workers":1,"slots":5,"borrowed":null,"dashboards":0,"auto":false}'
    """
    return _encoder.encode(demand)


def read_members(claims: Iterable[Claim], now_ms: int, process: str) -> tuple[Member, ...]:
    """Return the processes whose lease has not run out, but this one; a note that cannot be read counts as none."""
    members: list[Member] = []
    for claim in claims:
        if claim.deadline_ms > now_ms and claim.process != process:
            demand = Demand(borrowed=0)
            with contextlib.suppress(msgspec.DecodeError):
                demand = _decoder.decode(claim.note)
            members.append(Member(claim.process, claim.places, demand))
    return tuple(members)


def count_strangers(workers: Mapping[str, WorkerFacts], members: Sequence[Member], process: str, now: float) -> int:
    """Count the processes that have workers in the registry, were seen lately, and have no place in the budget."""
    known = {name.rpartition(":")[0] for name in (process, *(member.process for member in members))}
    found = {f"{facts.host}:{facts.pid}" for facts in workers.values() if now - facts.seen < UNSEEN}
    return len(found - known)


async def ask_server(client: Client) -> tuple[ServerFacts, int]:
    """Ask how many clients there are and may be, and what time it is there (ms).

    INFO tells both since Redis 6.2; where it does not, CONFIG is asked, and what that forbids stays unknown.

    Raises:
        ConnectionLost: The connection broke.
    """
    info, now = await client.roundtrip(pack_command("INFO", "clients") + pack_command("TIME"), 2)
    fields = parse_info(info)
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000 if isinstance(now, list) else 0
    clients, maxclients = _whole(fields.get("connected_clients")), _whole(fields.get("maxclients"))
    if maxclients is not None:
        return ServerFacts(maxclients, clients, "INFO"), now_ms
    (reply,) = await client.roundtrip(pack_command("CONFIG", "GET", "maxclients"), 1)
    maxclients = _whole(parse_config(reply))
    return ServerFacts(maxclients, clients, "unknown" if maxclients is None else "CONFIG"), now_ms


async def ask_fleet(client: Client, store: Store, budget: Budget, process: str) -> Fleet:
    """Ask the server and look at the other processes.

    Raises:
        ConnectionLost: The connection broke.
    """
    server, now_ms = await ask_server(client)
    claims: list[Claim] = []
    workers: Mapping[str, WorkerFacts] = {}
    # Why: a key that something else has written to must keep no app from starting.
    with contextlib.suppress(CommandRefused):
        claims = await budget.claims(client)
    members = read_members(claims, now_ms, process)
    with contextlib.suppress(CommandRefused):
        workers = await store.workers(client)
    return Fleet(server, members, count_strangers(workers, members, process, now_ms / 1000))


async def find_ghosts(client: Client, members: Sequence[Member]) -> list[str]:
    """Return the processes in the budget that have no connection to the server: they ended without a word.

    It reads the whole CLIENT LIST, so it is for the rare case that places are missing; where that is forbidden, none.

    Raises:
        ConnectionLost: The connection broke.
    """
    there = await connected_processes(client)
    if there is None:
        return []
    return [member.process for member in members if member.process.rpartition(":")[0] not in there]


async def connected_processes(client: Client) -> set[str] | None:
    """Return host and process id of each process that has a connection to the server; None where that is forbidden.

    Raises:
        ConnectionLost: The connection broke.
    """
    (reply,) = await client.roundtrip(pack_command("CLIENT", "LIST"), 1)
    text = reply if isinstance(reply, bytes) else getattr(reply, "data", None)
    if not isinstance(text, bytes) or not text:
        return None
    return processes_of(part[5:] for part in text.decode("utf-8", "replace").split() if part.startswith("name="))


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
