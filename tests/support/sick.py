"""What tests of health share: a call with its time, the events that it caused, and ways to harm a server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from headrace.pool.address import parse_address
from headrace.resp import pack_command
from tests.support.raw import Raw
from tests.support.stalls import Stalls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace import Headrace
    from headrace.health.verdict import Health

#: A call of `health` returns within this time whatever the server does, seconds: 0.8 and what a busy machine adds.
BOUND = 1.4
DEADLINE = 15.0
#: Keeps the server from everything else for as long as it takes to count.
BUSY = "local sum = 0; for number = 1, tonumber(ARGV[1]) do sum = sum + number end; return 1"
COUNT = 1_000_000


def send(url: str, *words: str | bytes | int) -> Any:
    """Send one command outside of a transaction, in which some may not stand."""
    with Raw(url) as raw:
        (reply,) = raw.link.roundtrip(pack_command(*words), 1)
    assert not isinstance(reply, Exception), reply
    return reply


async def timed(app: Headrace) -> Health:
    """Call `health`; it must return in time."""
    with Stalls() as stalls:
        began = time.monotonic()
        health = await app.health()
        took = stalls.lasted(began)
    assert took < BOUND, f"health() took {took:.2f} s"
    return health


async def until_status(app: Headrace, redis: str, reason: str = "", *, loop: str = "") -> Health:
    """Call `health` until it says so, for this reason first of all, and with this verdict on the loop if there is one.

    On a machine that stands still for a moment an answer may speak of that; the next one does not.
    """
    deadline = time.monotonic() + DEADLINE
    while True:
        health = await timed(app)
        if health.redis == redis and reason in " ".join(health.reasons[:1]) and loop in {"", health.loop}:
            return health
        assert time.monotonic() < deadline, f"never {redis}, {reason!r}, loop {loop!r}: {health.redis} {health.reasons}"
        await asyncio.sleep(0.02)


class Events:
    """The events of an app about its server and pool."""

    def __init__(self, app: Headrace) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self._news = asyncio.Event()
        for pattern in ("redis.*", "pool.*"):
            app.subscribe(pattern, self._take)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for seen, fields in self.seen if seen == name]

    async def until(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait for the event to have happened so often, and return the last."""
        async with asyncio.timeout(DEADLINE):
            while len(found := self.named(name)) < count:
                self._news.clear()
                await self._news.wait()
        return found[-1]

    def _take(self, event: Any) -> None:
        self.seen.append((event.name, dict(event.fields)))
        self._news.set()


@contextlib.contextmanager
def busy_server(url: str, milliseconds: int) -> Iterator[threading.Event]:
    """Keep a server busy with one long script after the other; the event is set once the first has ended."""
    stop, struck = threading.Event(), threading.Event()

    def work() -> None:
        with Raw(url) as raw:
            took = []
            for _ in range(3):
                began = time.monotonic()
                raw("EVAL", BUSY, 0, COUNT)
                took.append(time.monotonic() - began)
            # The best of three: where others use the machine, the server is kept for longer than asked, never for less.
            count = round(COUNT * milliseconds / 1000 / min(took))
            # Why not all of one length: a probe comes some time after the end of a script that it waited for, and may
            # then meet the end of a later one each time.
            lengths = itertools.cycle([1.0, 1.3, 0.8, 1.5])
            while not stop.is_set():
                raw("EVAL", BUSY, 0, round(count * next(lengths)))
                struck.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield struck
    finally:
        stop.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def fill_up_clients(url: str) -> list[socket.socket]:
    """Open connections until the server refuses one."""
    held: list[socket.socket] = []
    while len(held) < 100:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(DEADLINE)
        client.connect(str(parse_address(url).path))
        try:
            client.sendall(pack_command("PING"))
            answer = client.recv(1_000)
        except OSError:
            answer = b""
        if not answer.startswith(b"+"):
            client.close()
            return held
        held.append(client)
    raise AssertionError("the server never refused a connection")
