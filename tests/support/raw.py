"""A plain client for what a test looks at, or breaks, behind the back of Headrace."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Self

import hiredis

from headrace.pool.address import parse_address
from headrace.pool.connection import ServerReplyError
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Sequence

Word = str | bytes | int
DEADLINE = 10.0


class Raw:
    """Send commands and return their replies; an error reply is raised."""

    def __init__(self, url: str) -> None:
        self.link = SyncLink(parse_address(url), name="raw")

    def __call__(self, *words: Word) -> Any:
        return self.many((words,))[0]

    def many(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send commands in one round trip, as one transaction."""
        packed = b"".join(pack_command(*words) for words in [("MULTI",), *commands, ("EXEC",)])
        replies = self.link.roundtrip(packed, len(commands) + 2)[-1]
        errors = [reply for reply in replies if isinstance(reply, ServerReplyError)]
        assert not errors, errors
        return list(replies)

    def load(self, script: str) -> str:
        """Teach the server a script; returns its hash."""
        (sha,) = self.link.roundtrip(pack_command("SCRIPT", "LOAD", script), 1)
        return str(sha.decode())

    def keys(self, start: str) -> list[str]:
        """Return the names of all keys that begin like this."""
        cursor, found = b"0", []
        while True:
            cursor, page = self("SCAN", cursor, "MATCH", f"{start}*", "COUNT", 1_000)
            found += [name.decode() for name in page]
            if cursor == b"0":
                return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.link.close()


class Listener:
    """Take the messages of some channels, without waiting for any."""

    def __init__(self, url: str, channels: Sequence[str]) -> None:
        path = parse_address(url).path
        assert path is not None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(path)
        self._reader = hiredis.Reader()
        self._socket.sendall(pack_command("SUBSCRIBE", *channels))
        for _ in channels:
            self._next()

    def take(self) -> list[tuple[str, bytes]]:
        """Return channel and text of all messages that were published before this call."""
        self._socket.sendall(pack_command("PING"))
        found: list[tuple[str, bytes]] = []
        while (message := self._next())[0] != b"pong":
            found.append((message[1].decode(), message[2]))
        return found

    def close(self) -> None:
        self._socket.close()

    def _next(self) -> Any:
        while (message := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65_536))
        return message
