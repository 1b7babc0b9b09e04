"""What the synchronous pool needs to know of the socket under a connection of redis-py.

The names with an underscore are redis-py 8's; pyproject.toml keeps it below 9, and tests/pool fail when they go.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError, ResponseError

from headrace.pool.transport import PUSH, next_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: What using a connection raises: broken, or torn down in this moment by `disconnect` in another thread, which redis-py
#: does without a lock.
TORN: Final = (RedisError, OSError, AttributeError, TypeError, ValueError)


def file_numbers(connections: Iterable[Any]) -> list[int]:
    """Return the file numbers of the sockets of connections; one that is being opened has none yet."""
    numbers: list[int] = []
    for connection in connections:
        find = getattr(connection, "_get_socket", None)
        connected: Any = find() if find is not None else None
        if connected is not None and connected.fileno() >= 0:
            numbers.append(connected.fileno())
    return numbers


def is_clean(connection: Any, pushes: Callable[[], bool]) -> bool:
    """Tell whether nothing waits to be read, and the server has not closed the connection.

    Args:
        connection: An idle connection.
        pushes: Tells whether the server may send messages that nobody asked for (RESP3).
    """
    try:
        if not connection.can_read():
            return True
    except TORN:
        return False
    return pushes() and _begins_with_push(connection)


def answers(connection: Any, timeout: float) -> bool:
    """Tell whether the server answers a PING in time; a refused PING is an answer too."""
    try:
        word = next_word()
        connection.send_command("PING", word, check_health=False)
        return connection.read_response(timeout=timeout) in {word, word.encode()}
    except ResponseError:
        return True
    except TORN:
        return False


def connect_within(connection: Any, seconds: float, connect: Callable[[], object]) -> None:
    """Connect and log in, each step within so many seconds, and then let the connection's own timeouts apply.

    Args:
        connection: A connection that is not open.
        seconds: Longest time of each step: the connecting, and each reply of the login.
        connect: Opens it.

    Raises:
        Exception: What `connect` raises.
    """
    if not hasattr(connection, "update_current_socket_timeout"):
        connect()
        return
    reading, connecting = connection.socket_timeout, connection.socket_connect_timeout
    connection.socket_timeout = seconds if reading is None else min(reading, seconds)
    connection.socket_connect_timeout = seconds if connecting is None else min(connecting, seconds)
    try:
        connect()
    finally:
        connection.socket_timeout, connection.socket_connect_timeout = reading, connecting
    connection.update_current_socket_timeout(-1)


def _begins_with_push(connection: Any) -> bool:
    # Why: after a TLS layer or in the parser's buffer the bytes cannot be looked at; a new connection is the safe way.
    try:
        first: bytes = connection._get_socket().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)  # noqa: SLF001 - see above
    except (AttributeError, ValueError, OSError):
        return False
    return first == PUSH
