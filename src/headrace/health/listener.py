"""A small HTTP listener for probes: GET and HEAD of a few paths, one request a connection, everything bounded.

It reads one request line and the header fields behind it, answers and closes. Nothing in a request but its
method and path has any effect. docs/decisions/0010-health.md says why this is no library.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.census import Kind
from headrace.errors import SettingError
from headrace.health.answers import PATHS, Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headrace.census import Census, Entry

logger = logging.getLogger(__name__)

#: Connections at once; one more is closed unread.
CONNECTIONS: Final = 32
#: Largest request, bytes.
REQUEST_LIMIT_BYTES: Final = 8_192
#: A request must have arrived after so long, and be answered after so long, seconds.
REQUEST_TIMEOUT: Final = 2.0
ANSWER_TIMEOUT: Final = 3.0
#: An answer must have been taken, but for what the system holds, after so long, seconds.
SEND_TIMEOUT: Final = 3.0
#: After an answer the other side has so long to close, seconds, and may send so many bytes more.
LINGER: Final = 1.0
LINGER_BYTES: Final = 65_536

_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t -~\x80-\xff]*")


class Refusal(Exception):
    """Carry the status code of a request that is not answered."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Listener:
    """Answer probes on one port.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        answer: Called with one of `PATHS`.
        census: Where the port and the requests under way are entered.

    Attributes:
        port: The port, once it listens.
    """

    def __init__(self, host: str, port: int, answer: Callable[[str], Awaitable[Answer]], census: Census) -> None:
        self.port = port
        self._host = host
        self._answer = answer
        self._census = census
        self._server: asyncio.Server | None = None
        self._entry: Entry | None = None
        #: The requests under way, at most CONNECTIONS.
        self._requests: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Listen.

        Raises:
            SettingError: The address cannot be listened on.
        """
        try:
            self._server = await asyncio.start_server(
                self._connected, self._host, self.port, limit=REQUEST_LIMIT_BYTES, backlog=CONNECTIONS
            )
        except OSError as error:
            raise SettingError(
                f"HEADRACE_HEALTH_PORT={self.port}: cannot listen on {self._host} ({error.strerror or error}). "
                "Choose a free port and an address of this machine (HEADRACE_HEALTH_HOST), or 0 for no listener.",
                variable="HEADRACE_HEALTH_PORT",
                value=str(self.port),
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._entry = self._census.add(Kind.CONNECTION, f"health listener {self._host}:{self.port}", "health")
        logger.info("health listener started", extra={"host": self._host, "port": self.port})

    async def close(self) -> None:
        """Listen no more; requests under way are given up."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in self._requests:
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        if self._entry is not None:
            self._entry.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Why also when closed: what was accepted last is handed over a turn of the loop later.
        if self._closed or len(self._requests) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = self._census.create_task(
            self._serve(reader, writer), name="health request", owner="health", expected=(OSError,)
        )
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await self._read(reader)
            if head is not None:
                await self._respond(head, writer)
                await _linger(reader, writer)
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> bytes | Refusal | None:
        """Return a request up to its empty line; None when the other side sent none."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            return Refusal(HTTPStatus.BAD_REQUEST, "the request is not complete") if error.partial else None
        except asyncio.LimitOverrunError:
            return Refusal(HTTPStatus.BAD_REQUEST, f"the request is larger than {REQUEST_LIMIT_BYTES} bytes")
        except TimeoutError:
            return Refusal(HTTPStatus.REQUEST_TIMEOUT, f"no complete request within {REQUEST_TIMEOUT:g} s")

    async def _respond(self, head: bytes | Refusal, writer: asyncio.StreamWriter) -> None:
        method, extra = "GET", ""
        try:
            if isinstance(head, Refusal):
                raise head
            method, path = parse_request(head)
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await self._answer(path)
        except Refusal as refusal:
            answer = Answer(refusal.status, {"error": str(refusal)})
            extra = "Allow: GET, HEAD\r\n" if refusal.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
        except TimeoutError:
            answer = Answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"no answer within {ANSWER_TIMEOUT:g} s"})
        body = answer.text.encode() or msgspec.json.encode(answer.body) + b"\n"
        lines = (
            f"HTTP/1.1 {int(answer.code)} {HTTPStatus(answer.code).phrase}\r\n"
            f"Content-Type: {answer.type}\r\nContent-Length: {len(body)}\r\n"
            f"Cache-Control: no-store\r\n{extra}Connection: close\r\n\r\n"
        )
        # Why a limit: figures may be more than the system takes at once, and who does not read them must not stay.
        async with asyncio.timeout(SEND_TIMEOUT):
            writer.write(lines.encode() + (b"" if method == "HEAD" else body))
            await writer.drain()


def parse_request(head: bytes) -> tuple[str, str]:
    r"""Read method and path of a request.

    Raises:
        Refusal: The request is malformed, or of another method or path.

    Example:
        >>> parse_request(b"GET /livez?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
        ('GET', '/livez')
    """
    line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    matched = _LINE.fullmatch(line)
    found = [_FIELD.fullmatch(each) for each in fields]
    if matched is None or not all(found):
        raise Refusal(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request")
    hosts = sum(1 for each in found if each is not None and each[1].lower() == b"host")
    if hosts > 1 or (matched[3] == b"1" and not hosts):
        raise Refusal(HTTPStatus.BAD_REQUEST, "a request of HTTP/1.1 names its host once")
    method, path = matched[1].decode(), matched[2].decode().partition("?")[0]
    if path not in PATHS:
        raise Refusal(HTTPStatus.NOT_FOUND, f"there is {', '.join(PATHS)}")
    if method not in {"GET", "HEAD"}:
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered")
    return method, path


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait until the other side has closed: what it still sends would otherwise make the system drop the answer."""
    with contextlib.suppress(TimeoutError, OSError):
        writer.write_eof()
        async with asyncio.timeout(LINGER):
            left = LINGER_BYTES
            while left > 0 and (data := await reader.read(left)):
                left -= len(data)
