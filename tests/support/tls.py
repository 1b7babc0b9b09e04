"""Certificates made at the time of the test, and TLS in front of a server that speaks none itself."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import trustme

from headrace.pool.address import parse_address

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 10.0
CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of an authority, and what it signed.

    Attributes:
        authority: What both sides trust.
        server: Certificate and key of the server, in one file; good for `localhost` and 127.0.0.1, no other name.
        client: Certificate and key of the client, in one file.
        elsewhere: Certificate and key of a server that is good for another name only, in one file.
        stranger: An authority that neither side knows.
    """

    authority: Path
    server: Path
    client: Path
    elsewhere: Path
    stranger: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and sign with it; some 0.2 s."""
    authority, stranger = trustme.CA(), trustme.CA()
    made = Certificates(
        *(folder / f"{name}.pem" for name in ("authority", "server", "client", "elsewhere", "stranger"))
    )
    authority.cert_pem.write_to_path(str(made.authority))
    stranger.cert_pem.write_to_path(str(made.stranger))
    issued = {
        made.server: ("localhost", "127.0.0.1"),
        made.client: ("client@headrace.example",),
        made.elsewhere: ("elsewhere.example",),
    }
    for path, names in issued.items():
        authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
    return made


class TlsFront:
    """Take TLS connections on a port of this machine and pass on what they carry, in a thread of its own.

    Args:
        certificates: What the front shows, and trusts.
        target: URL of the server behind it.
        asks_client: Whether a client has to show a certificate.
        shows: Certificate of the front, when it is another than that of the server.
    """

    def __init__(
        self, certificates: Certificates, target: str, *, asks_client: bool = False, shows: Path | None = None
    ) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.authority))
        self._context.load_cert_chain(str(shows or certificates.server))
        self._context.verify_mode = ssl.CERT_REQUIRED if asks_client else ssl.CERT_NONE
        self._target = parse_address(target)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tls front", daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        # Bounded by the connections of the test.
        passing: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._pass_on(reader, writer))
            passing.add(task)
            task.add_done_callback(passing.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        # One more round, in which the transports let go of their sockets.
        await asyncio.sleep(0.02)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target.path is not None:
            behind, upstream = await asyncio.open_unix_connection(self._target.path)
        else:
            behind, upstream = await asyncio.open_connection(self._target.host, self._target.port)
        try:
            ways = [self._loop.create_task(_copy(reader, upstream)), self._loop.create_task(_copy(behind, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            upstream.transport.abort()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
