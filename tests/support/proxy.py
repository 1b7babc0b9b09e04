"""A proxy between clients and a server that cuts connections at a chosen moment of a chosen command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from headrace.pool.address import parse_address
from headrace.store.script import load_scripts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE = 15.0
CHUNK = 1_048_576


@dataclass
class Cut:
    """One fault to come: the connection that sends a matching request is closed before it gets its reply.

    Attributes:
        matches: Tells by the bytes of a request whether it is the one.
        before: Cut before the server sees the request, instead of after the server has answered it.
        reply_bytes: So many bytes of the reply still reach the client.
        hold: Refuse all connections from then on, until the proxy's `refusing` is set to False.
        stall: Keep the reply back instead of cutting, until `FaultProxy.release`.
        struck: Set once the connection was cut or its reply kept back.
    """

    matches: Callable[[bytes], bool]
    before: bool = False
    reply_bytes: int = 0
    hold: bool = False
    stall: bool = False
    struck: threading.Event = field(default_factory=threading.Event)

    async def strikes(self) -> None:
        """Wait until the connection was cut."""
        assert await asyncio.to_thread(self.struck.wait, DEADLINE), "the fault never struck"


@dataclass
class _Pair:
    client: socket.socket
    upstream: socket.socket
    cut: Cut | None = None
    kept: bytes = b""


def calls(*scripts: str, also: bytes = b"") -> Callable[[bytes], bool]:
    """Match requests that call all these scripts of the store by their hashes, and hold some other bytes too."""
    parts = [load_scripts()[script].sha.encode() for script in scripts] + [also]
    return lambda request: all(part in request for part in parts)


class FaultProxy:
    """Pass everything on, in a thread of its own, until a cut is armed and strikes; one cut strikes once."""

    def __init__(self, folder: Path, target: str) -> None:
        self.url = f"unix://{folder / f'proxy-{os.urandom(4).hex()}.sock'}"
        self._target = parse_address(target)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.url.removeprefix("unix://"))
        self._listener.listen(128)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._cuts: list[Cut] = []
        self._pairs: list[_Pair] = []
        self._released: list[Cut] = []
        self.refusing = False
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()

    def arm(
        self,
        matches: Callable[[bytes], bool],
        *,
        before: bool = False,
        reply_bytes: int = 0,
        hold: bool = False,
        stall: bool = False,
    ) -> Cut:
        """Cut the connection of the next request that matches."""
        cut = Cut(matches, before, reply_bytes, hold, stall)
        self._cuts.append(cut)
        return cut

    def release(self, cut: Cut) -> None:
        """Let the replies pass that a stall has kept back."""
        self._released.append(cut)
        self._wake.send(b"x")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        self._wake.send(b"x")
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered
        self._selector.close()
        self._wake.close()

    def _run(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._woken.recv(CHUNK)
                    self._let_pass()
                elif key.data is not None:
                    with contextlib.suppress(KeyError):
                        self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]  # only sockets are registered

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self.refusing:
            client.close()
            return
        if self._target.path is not None:
            upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            place: str | tuple[str, int] = self._target.path
        else:
            upstream = socket.socket()
            place = (self._target.host, self._target.port)
        try:
            upstream.connect(place)
        except OSError:
            client.close()
            upstream.close()
            return
        pair = _Pair(client, upstream)
        self._pairs.append(pair)
        self._selector.register(client, selectors.EVENT_READ, pair)
        self._selector.register(upstream, selectors.EVENT_READ, pair)

    def _pass_on(self, source: socket.socket, pair: _Pair) -> None:
        from_client = source is pair.client
        try:
            data = source.recv(CHUNK)
            if not data:
                self._close(pair)
            elif from_client:
                self._request(pair, data)
            elif pair.cut is None:
                pair.client.sendall(data)
            elif pair.cut.stall:
                pair.kept += data
                pair.cut.struck.set()
            else:
                pair.client.sendall(data[: pair.cut.reply_bytes])
                self._strike(pair, pair.cut)
        except OSError:
            self._close(pair)

    def _request(self, pair: _Pair, data: bytes) -> None:
        cut = next((cut for cut in self._cuts if cut.matches(data)), None)
        if cut is not None and pair.cut is None:
            self._cuts.remove(cut)
            if cut.before:
                self._strike(pair, cut)
                return
            pair.cut = cut
        pair.upstream.sendall(data)

    def _let_pass(self) -> None:
        for pair in [pair for pair in self._pairs if pair.cut in self._released]:
            pair.cut, kept, pair.kept = None, pair.kept, b""
            try:
                pair.client.sendall(kept)
            except OSError:
                # Who waited for it has gone.
                self._close(pair)

    def _strike(self, pair: _Pair, cut: Cut) -> None:
        self._close(pair)
        if cut.hold:
            self.refusing = True
            for other in list(self._pairs):
                self._close(other)
        cut.struck.set()

    def _close(self, pair: _Pair) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        for each in (pair.client, pair.upstream):
            # Why: events of one round may be about a pair that an earlier one of them has closed.
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each)
            each.close()
