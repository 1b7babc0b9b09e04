"""Sockets as every connection wants them: no delay, half-open ones found; and blocking ones, for synchronous code.

A half-open connection is one whose other side is gone without a word: its host lost power, or a router forgot it.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    import hiredis

    from headrace.pool.address import Address

#: A connection on which nothing came for so long is probed, and probed again at this interval, seconds.
KEEPALIVE_IDLE: Final = 15
KEEPALIVE_INTERVAL: Final = 5
#: It ends after so many probes without an answer: 30 s after the last sign of the other side.
KEEPALIVE_COUNT: Final = 3
#: What was sent and is not confirmed by the other side's kernel for so long ends the connection, milliseconds; Linux
#: applies it to probes too, so that an idle half-open connection ends there within 20 s. A server that is only slow or
#: stopped still confirms.
USER_TIMEOUT_MS: Final = 10_000
#: Bytes taken from a socket at once.
RECEIVE_BYTES: Final = 65_536


class Tunable(Protocol):
    """A socket whose options can be set; that of uvloop is none of the class `socket.socket`."""

    @property
    def family(self) -> int:
        """Address family."""
        ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set one option."""
        ...


def tune(connected: Tunable) -> None:
    """Set the options of a TCP socket; one of another kind, or an option that the platform lacks, is left alone."""
    if connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {
        # What macOS calls the time before the first probe.
        "TCP_KEEPALIVE": KEEPALIVE_IDLE,
        "TCP_KEEPIDLE": KEEPALIVE_IDLE,
        "TCP_KEEPINTVL": KEEPALIVE_INTERVAL,
        "TCP_KEEPCNT": KEEPALIVE_COUNT,
        "TCP_USER_TIMEOUT": USER_TIMEOUT_MS,
    }
    for name, value in wanted.items():
        option = getattr(socket, name, None)
        if option is not None:
            # Why: a kernel or a sandbox may not know what the headers of its Python promised.
            with contextlib.suppress(OSError):
                connected.setsockopt(socket.IPPROTO_TCP, option, value)


def open_socket(address: Address, timeout: float) -> socket.socket:
    """Connect a blocking socket, with TLS where the address wants it.

    Args:
        address: A place, not the sentinels of one.
        timeout: Longest wait in seconds for each step; a name that is looked up may take longer (the system's limit).

    Raises:
        OSError: There is no connection.
    """
    if address.path is not None:
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            local.settimeout(timeout)
            local.connect(address.path)
        except BaseException:
            local.close()
            raise
        return local
    connected = socket.create_connection((address.host, address.port), timeout)
    try:
        tune(connected)
        context = address.ssl_context()
        return connected if context is None else context.wrap_socket(connected, server_hostname=address.host)
    except BaseException:
        connected.close()
        raise


def exchange(
    connected: socket.socket, reader: hiredis.Reader, payload: bytes, count: int, deadline: float
) -> list[Any]:
    """Send packed commands on a blocking socket and return their replies.

    Args:
        connected: The socket, on which nobody else waits for replies.
        reader: Its parser.
        payload: Packed commands.
        count: How many they are.
        deadline: When to give up, by `time.monotonic`.

    Raises:
        OSError: The connection broke, or the time ran out.
    """
    connected.settimeout(max(0.001, deadline - time.monotonic()))
    connected.sendall(payload)
    replies: list[Any] = []
    while len(replies) < count:
        reply = reader.gets()
        if reply is False:
            connected.settimeout(max(0.001, deadline - time.monotonic()))
            data = connected.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(data)
        else:
            replies.append(reply)
    return replies


def exchange_all(
    connected: socket.socket, reader: hiredis.Reader, commands: Sequence[Sequence[Any]], deadline: float
) -> list[Any]:
    """Do what `exchange` does with commands that are not packed yet."""
    payload = b"".join([pack_command(*command) for command in commands])
    return exchange(connected, reader, payload, len(commands), deadline)
