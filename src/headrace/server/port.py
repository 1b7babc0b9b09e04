"""Open and close a TCP port of a running server, over its private socket."""

from __future__ import annotations

import socket
from typing import Final

from headrace.errors import CommandRefused, ConnectionLost, OptionError, UsageError

_ANSWER_TIMEOUT: Final = 5.0


def open_port(socket_path: str, port: int) -> None:
    """Have a running server listen on 127.0.0.1 as well, until it ends or `close_port`.

    Args:
        socket_path: The server's private socket.
        port: The port, 1 to 65535.

    Raises:
        OptionError: The port is out of its bounds.
        UsageError: The server listens on another port already.
        CommandRefused: The port is taken, or the server is older than Redis 7.0, which cannot open one while it runs.
        ConnectionLost: The server does not answer.
    """
    if not 1 <= port <= 65535:  # noqa: PLR2004 - the highest port there is
        raise OptionError(f"port={port!r}: expected a whole number from 1 to 65535.")
    present = _ask(socket_path, "CONFIG GET port").split()[-1].decode()
    if present == str(port):
        return
    if present != "0":
        raise UsageError(
            f"the server at {socket_path} is open on port {present} already. Use that one, or close it first."
        )
    _ask(socket_path, f"CONFIG SET port {port}")


def close_port(socket_path: str) -> None:
    """Have a running server listen on its private socket only.

    Raises:
        CommandRefused: The server is older than Redis 7.0.
        ConnectionLost: The server does not answer.
    """
    _ask(socket_path, "CONFIG SET port 0")


def _ask(socket_path: str, command: str) -> bytes:
    """Send one inline command and read its short answer."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_TIMEOUT)
            connection.connect(socket_path)
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            answer = b""
            while data := connection.recv(4096):
                answer += data
    except OSError as error:
        raise ConnectionLost(
            f"the server at {socket_path} does not answer {command!r}: {error}. See its log, server.log in its folder."
        ) from error
    answer = answer.removesuffix(b"+OK\r\n")
    if answer.startswith(b"-"):
        raise CommandRefused(
            f"the server at {socket_path} refuses {command!r}: {answer[1:].decode('utf-8', 'replace').strip()}. "
            "The port may be taken; a server older than Redis 7.0 cannot change it while it runs."
        )
    return answer
