"""Commands as bytes of the Redis serialization protocol, packed by hiredis.

Source: "Redis serialization protocol specification", redis.io/docs/latest/develop/reference/protocol-spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import hiredis

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What to do about a lacking right.
NO_RIGHT: Final = "Give the user in REDIS_URL this right (ACL SETUSER), or name another one."


def pack_arguments(words: Sequence[str | bytes | int]) -> bytes:
    r"""Pack words without the count that stands in front of a command.

    Example:
        >>> pack_arguments(("GET", 7))
        b'$3\r\nGET\r\n$1\r\n7\r\n'
    """
    packed: bytes = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]  # the stub names one word
    return packed[packed.index(b"\n") + 1 :]


def pack_command(*words: str | bytes | int) -> bytes:
    r"""Pack one command.

    Example:
        >>> pack_command("PING")
        b'*1\r\n$4\r\nPING\r\n'
    """
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # the stub names one word
    return packed


def is_no_right(said: str) -> bool:
    """Tell whether the server refused something because the user lacks a right, also when it was in a script.

    Example:
        >>> is_no_right("NOPERM User ann has no permissions to run the 'info' command")
        True
        >>> is_no_right("ERR ACL failure in script: User ann has no permissions to run the 'hset' command")
        True
        >>> is_no_right("WRONGTYPE Operation against a key holding the wrong kind of value")
        False
    """
    return said.startswith(("NOPERM", "ERR ACL failure in script", "ERR The user executing the script can't"))


def parse_info(reply: Any) -> dict[str, str]:
    """Read the reply of INFO; what is no text, such as a refusal, has no fields.

    Example:
        >>> parse_info(b"# Clients" + bytes([13, 10]) + b"connected_clients:3" + bytes([13, 10]))
        {'connected_clients': '3'}
    """
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply if isinstance(reply, str) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def parse_config(reply: Any) -> str | None:
    """Read the value in the reply of CONFIG GET with one name, of RESP2 or RESP3; a refusal is None.

    Example:
        >>> parse_config({b"maxclients": b"10000"}), parse_config([b"maxclients", b"64"]), parse_config(ValueError())
        ('10000', '64', None)
    """
    if isinstance(reply, dict):
        reply = [part for pair in reply.items() for part in pair]
    if not isinstance(reply, list) or len(reply) < 2 or not isinstance(reply[1], bytes):  # noqa: PLR2004 - name and value
        return None
    return reply[1].decode("utf-8", "replace")
