"""What the pool needs of the socket under a connection of redis-py, and redis-py has no public name for.

The names with an underscore are redis-py 8's; pyproject.toml keeps it below 9, and tests/pool fail when they go.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from redis.asyncio.connection import AbstractConnection

#: First byte of a message that the server sends by itself.
PUSH: Final = b">"
_numbers = itertools.count()


def abort(connection: AbstractConnection) -> None:
    """Drop the socket of a connection at once, also when bytes are still to be written to a server that is gone."""
    writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)
    if writer is not None:
        writer.transport.abort()


def begins_with_push(connection: AbstractConnection) -> bool:
    """Tell whether the unread bytes of a connection begin with a message that the server sent by itself (RESP3).

    What the parser has read already cannot be looked at, and counts as none: a new connection is the safe way then.
    """
    unread: bytes = bytes(getattr(getattr(connection, "_reader", None), "_buffer", b"")[:1])
    return unread == PUSH


def next_word() -> str:
    """Return what a PING is to be answered with, another one each time, so that no older reply passes for it."""
    return f"headrace-{next(_numbers)}"


def file_numbers(connections: Iterable[AbstractConnection]) -> list[int]:
    """Return the file numbers of the sockets of asyncio connections."""
    numbers: list[int] = []
    for connection in connections:
        writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)
        socket: Any = writer.transport.get_extra_info("socket") if writer is not None else None
        if socket is not None and socket.fileno() >= 0:
            numbers.append(socket.fileno())
    return numbers


def blind(numbers: Iterable[int]) -> None:
    """Replace files of a forked child by /dev/null, so that it neither uses its parent's sockets nor keeps them open.

    Why: closing the file would let its number be given to another file, which whoever still holds the number would then
    close; and taking it out of the event loop would take it out of the parent's, since both share one epoll.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for number in numbers:
            with contextlib.suppress(OSError):
                os.dup2(null, number)
    finally:
        os.close(null)
