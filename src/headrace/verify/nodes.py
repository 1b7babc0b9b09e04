"""The servers behind an app, one by one: its server, or the primaries of its cluster; and the keys that they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from headrace.errors import CommandRefused
from headrace.pool.cluster import Cluster
from headrace.pool.lanes import Lane
from headrace.resp import pack_command
from headrace.verify.evidence import Stored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headrace.app import Headrace
    from headrace.pool.confirm import Trip

T = TypeVar("T")

#: Keys in one page of a scan, and in one round trip.
PAGE = 1_000
#: Keys of one server that are asked for their size, at most.
MOST_SIZED = 10_000


async def visit_nodes(app: Headrace, visit: Callable[[Trip], Awaitable[T]]) -> list[T]:
    """Call a function with a connection to each server in turn, and return what it returned.

    Args:
        app: An open app.
        visit: Called with a connection of the user lane, to one server.

    Raises:
        ConnectionLost: A server could not be reached.
    """
    links = app.links
    if not isinstance(links, Cluster):
        return [await visit(app.user)]
    found: list[T] = []
    for place in dict.fromkeys(links.slots.primaries):
        node = app.pool.link(Lane.USER, f"verify@{place}", owner="verify", address=links.address_of(place))
        try:
            found.append(await visit(node))
        finally:
            await app.pool.release(node)
    return found


async def list_keys(app: Headrace, prefix: str) -> list[bytes]:
    """Return every key below a prefix, of all servers.

    Raises:
        ConnectionLost: A connection broke.
        CommandRefused: A server does not let this user scan.
    """
    return [key for keys in await visit_nodes(app, lambda link: _scan(link, prefix)) for key in keys]


async def delete_keys(app: Headrace, prefix: str) -> list[str]:
    """Delete every key below a prefix, and return those that are left: none, or the server refuses.

    Raises:
        ConnectionLost: A connection broke.
        CommandRefused: A server does not let this user scan.
    """

    async def delete(link: Trip) -> list[bytes]:
        await ask_of_keys(link, "UNLINK", await _scan(link, prefix))
        return await _scan(link, prefix)

    return [key.decode(errors="replace") for keys in await visit_nodes(app, delete) for key in keys]


async def read_stored(app: Headrace, prefix: str) -> Stored:
    """Return what the servers hold below a prefix, and how many keys beside it.

    Raises:
        ConnectionLost: A connection broke.
        CommandRefused: A server does not let this user scan.
    """

    async def read(link: Trip) -> Stored:
        keys = await _scan(link, prefix)
        sizes = await ask_of_keys(link, "MEMORY USAGE", keys[:MOST_SIZED], "SAMPLES", "0")
        (count,) = await link.roundtrip(pack_command("DBSIZE"), 1)
        others = count - len(keys) if isinstance(count, int) else 0
        # A key may have expired since, and a user may be refused the question.
        size = sum(size for size in sizes if isinstance(size, int))
        return Stored(keys=len(keys), size=size, others=max(0, others))

    found = await visit_nodes(app, read)
    return Stored(
        keys=sum(one.keys for one in found),
        size=sum(one.size for one in found),
        others=sum(one.others for one in found),
    )


async def ask_of_keys(link: Trip, command: str, keys: Sequence[bytes], *words: str) -> list[Any]:
    """Send one command for each key, a page of them in one round trip, and return the replies.

    Raises:
        ConnectionLost: The connection broke.
    """
    replies: list[Any] = []
    for at in range(0, len(keys), PAGE):
        page = keys[at : at + PAGE]
        # Why one each: in a cluster a command takes keys of one slot only.
        payload = b"".join(pack_command(*command.split(), key, *words) for key in page)
        replies += await link.roundtrip(payload, len(page))
    return replies


async def _scan(link: Trip, prefix: str) -> list[bytes]:
    cursor, found = b"0", []
    while True:
        (reply,) = await link.roundtrip(pack_command("SCAN", cursor, "MATCH", f"{prefix}:*", "COUNT", PAGE), 1)
        if isinstance(reply, Exception):
            raise CommandRefused(f"SCAN was refused: {reply}. Allow it to the user of REDIS_URL.")
        cursor, keys = reply
        found += keys
        if cursor == b"0":
            return found
