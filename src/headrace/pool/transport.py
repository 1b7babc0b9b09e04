"""What the pool needs of the socket under a connection of redis-py, and redis-py has no public name for.

The names with an underscore are redis-py 8's; pyproject.toml keeps it below 9, and tests/pool fail when they go.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from redis.asyncio.connection import AbstractConnection

#: First byte of a message that the server sends by itself.
PUSH: Final = b">"
_numbers = itertools.count()


#: Set on a stream that has ended.
ENDED: Final = "_headrace_ended"


def watch_end(connection: AbstractConnection, tell: Callable[[AbstractConnection], None]) -> None:
    """Have `tell` called with the connection when its stream ends, whoever ends it; nothing is kept alive by that.

    Why: a stream of asyncio tells its end to whoever reads, and nobody reads an idle connection. The two methods that
    its transport calls then are public, and are watched on this one stream.
    """
    reader: Any = getattr(connection, "_reader", None)
    if not isinstance(reader, asyncio.StreamReader):
        return
    # Weak, since the stream itself will hold what is made here.
    stream, whose = weakref.ref(reader), weakref.ref(connection)

    def note() -> None:
        ended = whose()
        if ended is not None:
            tell(ended)

    def feed_eof() -> None:
        ending = stream()
        if ending is not None:
            setattr(ending, ENDED, True)
            asyncio.StreamReader.feed_eof(ending)
        note()

    def set_exception(exc: Exception) -> None:
        ending = stream()
        if ending is not None:
            setattr(ending, ENDED, True)
            asyncio.StreamReader.set_exception(ending, exc)
        note()

    reader.feed_eof = feed_eof  # type: ignore[method-assign]  # of this one stream
    reader.set_exception = set_exception  # type: ignore[method-assign]  # of this one stream


def has_ended(connection: AbstractConnection) -> bool:
    """Tell whether the stream of a watched connection has ended, or there is none."""
    reader = getattr(connection, "_reader", None)
    return reader is None or getattr(reader, ENDED, False)


def leave(connection: AbstractConnection) -> None:
    """Let go of the socket of a connection whose event loop is closed; the server sees its end."""
    blind(file_numbers([connection]))
    forget_streams(connection)


def abort(connection: AbstractConnection) -> None:
    """Drop the socket of a connection, also when bytes are still to be written to a server that is gone.

    The loop closes it in its next step, so before anything that is begun from now on.
    """
    writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)
    if writer is None:
        return
    connection._parser.on_disconnect()  # type: ignore[no-untyped-call]  # noqa: SLF001 - as redis-py's own does
    writer.transport.abort()
    forget_streams(connection)


def bar(connection: AbstractConnection, make_error: Callable[[], Exception]) -> None:
    """Keep the holder of a connection from opening it anew, as redis-py's commands do by themselves."""

    async def refuse(*_: object, **__: object) -> None:
        raise make_error()

    for name in ("connect", "connect_check_health"):
        setattr(connection, name, refuse)


def forget_streams(connection: AbstractConnection) -> None:
    """Take the streams from a connection, so that it is closed and says so."""
    for name in ("_reader", "_writer"):
        setattr(connection, name, None)


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
