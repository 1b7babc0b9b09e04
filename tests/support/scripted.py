"""A server on a socket of its own that answers what a test says, for faults that a real server shows too seldom."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import hiredis

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

Command = list[bytes]
Answer = bytes | None
USUAL: dict[bytes, Answer] = {b"HELLO": b"%0\r\n", b"CLIENT": b"+OK\r\n", b"SELECT": b"+OK\r\n", b"PING": b"+PONG\r\n"}


class Scripted:
    """Answer commands: those of a handshake by itself, the rest by the function `answer`.

    Attributes:
        answer: Takes a command and returns the bytes of its reply, or None for no reply at all.
        handshake: Replies of the handshake that differ from the usual ones, by the name of the command.
        commands: All that came, without handshakes.
        opened: Connections so far.
    """

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self.answer: Callable[[Command], Answer] = lambda _: b"+OK\r\n"
        self.handshake: dict[bytes, Answer] = {}
        self.commands: list[Command] = []
        self.opened = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Condition()

    async def until(self, claim: Callable[[Scripted], object], timeout: float = 10.0) -> None:
        """Wait until something is true of what came."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: claim(self))

    def send(self, data: bytes) -> None:
        """Send bytes on all connections that are open, asked or not."""
        for writer in self._writers:
            writer.write(data)

    def cut(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.opened += 1
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    await self._take(command, writer)
        self._writers.remove(writer)
        writer.close()

    async def _take(self, command: Any, writer: asyncio.StreamWriter) -> None:
        usual: dict[bytes, bytes] = {
            b"HELLO": b"%0\r\n",
            b"CLIENT": b"+OK\r\n",
            b"SELECT": b"+OK\r\n",
            b"PING": b"+PONG\r\n",
        }
        answer: Answer
        if command[0] in usual:
            answer = self.handshake.get(command[0], usual[command[0]])
            if command[0] == b"PING" and command[1:] and b"PING" not in self.handshake:
                answer = b"$%d\r\n%b\r\n" % (len(command[1]), command[1])
        elif command[0] == b"SUBSCRIBE":
            answer = b"".join(b">3\r\n+subscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(name), name) for name in command[1:])
        else:
            answer = self.answer(command)
        async with self._changed:
            if command[0] not in USUAL:
                self.commands.append(command)
            self._changed.notify_all()
        if answer is not None:
            writer.write(answer)


@contextlib.asynccontextmanager
async def scripted(path: Path) -> AsyncIterator[Scripted]:
    """Run a scripted server beside the block."""
    server = Scripted(path)
    listening = await asyncio.start_unix_server(server.serve, path)
    try:
        yield server
    finally:
        server.cut()
        listening.close()
        await listening.wait_closed()


@contextlib.asynccontextmanager
async def scripted_on_port(path: Path, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Scripted, int]]:
    """Run a scripted server beside the block on a port of 127.0.0.1, which stands beside it."""
    server = Scripted(path)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server, listening.sockets[0].getsockname()[1]
    finally:
        server.cut()
        listening.close()
