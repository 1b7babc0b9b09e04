"""Commands as bytes of the Redis serialization protocol, packed by hiredis.

Source: "Redis serialization protocol specification", redis.io/docs/latest/develop/reference/protocol-spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import hiredis

if TYPE_CHECKING:
    from collections.abc import Sequence


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
