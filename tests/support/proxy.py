"""A proxy between clients and a server that cuts connections at a chosen moment, or makes the way to it a bad one."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import selectors
import socket
import threading
import time
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
    #: Whatever comes on it vanishes, and nobody is told.
    deaf: bool = False


def calls(*scripts: str, also: bytes = b"") -> Callable[[bytes], bool]:
    """Match requests that call all these scripts of the store by their hashes, and hold some other bytes too."""
    parts = [load_scripts()[script].sha.encode() for script in scripts] + [also]
    return lambda request: all(part in request for part in parts)


class FaultProxy:
    """Pass everything on, in a thread of its own, until a cut is armed and strikes; one cut strikes once.

    Args:
        folder: Where its socket is made.
        target: Address of the server.
        tcp: Listen on a TCP port of this host instead.

    Attributes:
        refusing: Close new connections as soon as they are accepted.
        silent: Let everything vanish; what is open meanwhile stays deaf for good, also when it is False again.
        delay: Seconds that replies are kept back.
        accepted: Connections so far, refused ones too.
        swallowed: Pieces of data that vanished.
    """

    def __init__(self, folder: Path, target: str, *, tcp: bool = False) -> None:
        self._path = str(folder / f"proxy-{os.urandom(4).hex()}.sock")
        self._target = parse_address(target)
        self._selector = selectors.DefaultSelector()
        self._port = 0 if tcp else None
        self._listener: socket.socket | None = self._listen()
        self.url = f"unix://{self._path}" if self._port is None else f"redis://127.0.0.1:{self._port}"
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._cuts: list[Cut] = []
        self._pairs: list[_Pair] = []
        self._released: list[Cut] = []
        self._late: list[tuple[float, int, _Pair, bytes]] = []
        self._orders: list[Callable[[], None]] = []
        self._numbers = itertools.count()
        self.refusing = self.silent = False
        self.delay = 0.0
        self.accepted = self.swallowed = 0
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._thread.start()

    def _listen(self) -> socket.socket:
        if self._port is None:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(self._path)
        else:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
            self._port = listener.getsockname()[1]
        listener.listen(512)
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def shut(self) -> None:
        """Cut all connections, and listen no more: the system refuses new ones."""
        self._order(self._cut_all, self._shut)

    def open(self) -> None:
        """Listen again at the same place."""
        self._order(self._open)

    def cut(self) -> None:
        """Cut all connections."""
        self._order(self._cut_all)

    def deafen(self) -> None:
        """Let everything vanish that comes on the connections of now, as when the other host lost its power."""
        self._order(self._deafen_all)

    def _order(self, *orders: Callable[[], None]) -> None:
        """Run something in the thread of the proxy, and wait for it."""
        done = threading.Event()
        self._orders += [*orders, done.set]
        self._wake.send(b"x")
        assert done.wait(DEADLINE)

    def _deafen_all(self) -> None:
        for pair in self._pairs:
            pair.deaf = True

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            self._close(pair)

    def _shut(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _open(self) -> None:
        if self._listener is None:
            if self._port is None:
                os.unlink(self._path)  # noqa: PTH108 - the path of a socket is plain text
            self._listener = self._listen()

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
            for key, _ in self._selector.select(self._pause()):
                if key.fileobj is self._listener:
                    self._accept(self._listener)
                elif key.fileobj is self._woken:
                    self._woken.recv(CHUNK)
                    while self._orders:
                        self._orders.pop(0)()
                    self._let_pass()
                elif key.data is not None:
                    with contextlib.suppress(KeyError):
                        self._pass_on(key.fileobj, key.data)  # type: ignore[arg-type]  # only sockets are registered
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, pair, data = heapq.heappop(self._late)
                with contextlib.suppress(OSError):
                    pair.client.sendall(data)

    def _pause(self) -> float | None:
        return max(0.0, self._late[0][0] - time.monotonic()) if self._late else None

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        self.accepted += 1
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
        pair = _Pair(client, upstream, deaf=self.silent)
        self._pairs.append(pair)
        self._selector.register(client, selectors.EVENT_READ, pair)
        self._selector.register(upstream, selectors.EVENT_READ, pair)

    def _pass_on(self, source: socket.socket, pair: _Pair) -> None:
        from_client = source is pair.client
        try:
            data = source.recv(CHUNK)
            pair.deaf = pair.deaf or self.silent
            if pair.deaf and data:
                self.swallowed += 1
            elif pair.deaf and from_client:
                self._close(pair)
            elif pair.deaf:
                # The client does not learn that the server ended it.
                self._selector.unregister(source)
            elif not data:
                self._close(pair)
            elif from_client:
                self._request(pair, data)
            elif pair.cut is None and self.delay:
                heapq.heappush(self._late, (time.monotonic() + self.delay, next(self._numbers), pair, data))
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
