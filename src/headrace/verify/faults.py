"""The faults of the drill: a worker is killed, one paused, connections are cut, the server is restarted, and killed."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import CommandRefused, ConnectionLost
from headrace.resp import pack_command
from headrace.verify.evidence import Strike
from headrace.verify.mortal import find_process, read_persistence
from headrace.verify.nodes import visit_nodes
from headrace.verify.tasks import QUEUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.app import Headrace
    from headrace.pool.confirm import Trip
    from headrace.server import PrivateServer
    from headrace.verify.crew import Hand
    from headrace.verify.journal import Journal
    from headrace.verify.place import Place

PING: Final = pack_command("PING")
#: Longest wait for work to go on after a fault, beyond the lease, seconds.
PATIENCE: Final = 15.0
#: A paused worker stays so for the lease and this much longer, seconds.
BEYOND: Final = 1.5
#: A server that is asked to end must be back within this time, seconds.
BACK: Final = 20.0


class Faults:
    """Strike workers and server, and see how work goes on.

    Args:
        app: An open app of this process.
        place: Where.
        journal: What the jobs tell.
        lease: Lease of the workers, seconds.
    """

    def __init__(self, app: Headrace, place: Place, journal: Journal, lease: float) -> None:
        self._app = app
        self._place = place
        self._journal = journal
        self._lease = lease
        #: Jobs that a struck worker held, and the spans in which connections or the server were away.
        self.held: set[str] = set()
        self.away: list[tuple[float, float]] = []
        #: What the server promises to keep through a SIGKILL, in words, and the spans whose jobs it may lose.
        self.persistence = ""
        self.volatile: list[tuple[float, float]] = []

    async def kill(self, hand: Hand) -> Strike:
        """End a worker with SIGKILL, and wait until others have begun what it held."""
        at = time.time()
        await hand.kill()
        return await self._follow("kill", hand, f"{hand.name} (pid {hand.pid}) ended with SIGKILL", at)

    async def pause(self, hand: Hand) -> Strike:
        """Stop a worker with SIGSTOP beyond its lease, and let it go on."""
        hand.process.send_signal(signal.SIGSTOP)
        at = time.time()
        try:
            strike = await self._follow("pause", hand, f"{hand.name} (pid {hand.pid}) stopped with SIGSTOP", at)
            await asyncio.sleep(max(0.0, at + self._lease + BEYOND - time.time()))
        finally:
            hand.process.send_signal(signal.SIGCONT)
        return strike

    async def cut(self, hands: Sequence[Hand]) -> Strike:
        """Have the server close all connections of some workers."""
        pids = {hand.pid for hand in hands}
        try:
            closed = sum(await visit_nodes(self._app, lambda link: _close_connections(link, pids)))
        except CommandRefused as error:
            return Strike(fault="cut", skipped=str(error))
        if not closed:
            return Strike(fault="cut", skipped="CLIENT LIST names no connection of the workers: a proxy may hide them")
        struck = f"{closed} connections of {len(pids)} workers closed by the server"
        return await self._await_work("cut", struck, time.time(), pids)

    async def restart(self, hands: Sequence[Hand], *, destructive: bool) -> Strike:
        """Restart the server: the one started for this run, or, when that is wanted, the user's own.

        Args:
            hands: The workers that must go on.
            destructive: Whether the user's own server may be told to end, which something must start again.
        """
        server, pids = self._place.server, {hand.pid for hand in hands}
        if reason := self._spared(destructive=destructive):
            return Strike(fault="restart", skipped=reason)
        began = time.time()
        if server is not None:
            await self._app.census_book.in_thread(server.restart, name="restart the server", owner="verify")
            struck = "the server stopped and started again on its data"
        else:
            struck = await self._shut_down()
            if not struck:
                return Strike(fault="restart", struck="SHUTDOWN, after which the server did not come back")
        self.away.append((began, time.time()))
        return await self._await_work("restart", struck, time.time(), pids)

    async def crash(self, hands: Sequence[Hand], *, destructive: bool) -> Strike:
        """End the server with SIGKILL, and have it started again.

        Args:
            hands: The workers that must go on.
            destructive: Whether the user's own server may be killed, which something must start again.
        """
        app, server, pids = self._app, self._place.server, {hand.pid for hand in hands}
        if reason := self._spared(destructive=destructive):
            return Strike(fault="crash", skipped=reason)
        try:
            persistence, volatile = await read_persistence(app.user)
            process = None if server is not None else await find_process(app.user)
        except CommandRefused as error:
            return Strike(fault="crash", skipped=str(error))
        self.persistence, began = persistence, time.time()
        if server is not None:
            await app.census_book.in_thread(_kill_and_start, server, name="kill the server", owner="verify")
        elif process is not None:
            process.kill()
            if not await self._await_back():
                return Strike(fault="crash", struck="SIGKILL, after which the server did not come back")
        self.volatile.append((began - volatile, time.time()))
        self.away.append((began - volatile, time.time()))
        struck = f"the server ended with SIGKILL and started again on its data; {persistence}"
        return await self._await_work("crash", struck, time.time(), pids)

    def _spared(self, *, destructive: bool) -> str:
        """Say why the server is left in peace; an empty text when it is not."""
        if self._place.server is not None:
            return ""
        if self._app.store.clustered:
            return "which node of a cluster may fall is for you to say: stop one while `headrace verify --soak` runs"
        return "" if destructive else "the server is yours, and to end it was not asked for with --destructive"

    async def _shut_down(self) -> str:
        """Tell the server to end, and wait until it is back; an empty text when it is not."""
        began = time.monotonic()
        try:
            (reply,) = await self._app.user.roundtrip(pack_command("SHUTDOWN"), 1, timeout=5.0)
        except ConnectionLost:
            reply = None
        if isinstance(reply, Exception):
            return ""
        back = await self._await_back()
        return f"SHUTDOWN; the server was back after {time.monotonic() - began:.1f} s" if back else ""

    async def _await_back(self) -> bool:
        """Wait until the server answers and has loaded its data; returns whether it did in time."""
        began = time.monotonic()
        while time.monotonic() - began < BACK:
            try:
                (reply,) = await self._app.user.roundtrip(PING, 1, timeout=1.0)
            except ConnectionLost:
                reply = None
            if reply is not None and not isinstance(reply, Exception):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _follow(self, fault: str, hand: Hand, struck: str, at: float) -> Strike:
        """Wait until all that a struck worker holds has begun elsewhere."""
        held = await self._holds(hand)
        self.held |= held
        runs = self._journal.runs

        def begun_elsewhere() -> list[float | None]:
            return [
                next((one.at for one in runs[job].starts if one.at > at and one.pid != hand.pid), None)
                if job in runs
                else None
                for job in held
            ]

        done = await self._journal.until(lambda: None not in begun_elsewhere(), self._lease + PATIENCE)
        times = [begun for begun in begun_elsewhere() if begun is not None]
        recovered = max(times, default=at) - at if done else None
        return Strike(fault=fault, struck=struck, held=len(held), recovered=recovered)

    async def _await_work(self, fault: str, struck: str, at: float, pids: set[int]) -> Strike:
        """Wait until each of these workers has begun a job again."""
        runs = self._journal.runs

        def begun() -> dict[int, float]:
            found: dict[int, float] = {}
            for job in list(runs)[-2_000:]:
                for one in runs[job].starts:
                    if one.at > at and one.pid in pids:
                        found[one.pid] = min(one.at, found.get(one.pid, one.at))
            return found

        done = await self._journal.until(lambda: begun().keys() >= pids, PATIENCE)
        recovered = max(begun().values()) - at if done else None
        self.away.append((at, at + (recovered or PATIENCE)))
        return Strike(fault=fault, struck=struck, recovered=recovered)

    async def _holds(self, hand: Hand) -> set[str]:
        """Return the ids of the jobs that a worker holds; after one more answer the server has read all it sent."""
        app, found = self._app, set[str]()
        await app.store.mine(app.user, QUEUE, hand.worker_id)
        # On a machine that is too busy for the lease a worker loses it, and goes on under a further name.
        for name in (hand.worker_id, f"{hand.worker_id}.1", f"{hand.worker_id}.2"):
            found |= {job.decode() for job in await app.store.mine(app.user, QUEUE, name)}
        return found


def _kill_and_start(server: PrivateServer) -> None:
    server.kill()
    server.start()


async def _close_connections(link: Trip, pids: set[int]) -> int:
    """Have one server close all its connections of some processes, and return how many it closed.

    Raises:
        CommandRefused: The server does not let this user do so.
    """
    (listing,) = await link.roundtrip(pack_command("CLIENT", "LIST"), 1)
    if isinstance(listing, Exception):
        raise CommandRefused(f"CLIENT LIST was refused: {listing}. Allow it to the user of REDIS_URL.")
    ids = find_connections(listing, pids)
    if not ids:
        return 0
    replies = await link.roundtrip(b"".join(pack_command("CLIENT", "KILL", "ID", each) for each in ids), len(ids))
    refused = [reply for reply in replies if isinstance(reply, Exception)]
    if len(refused) == len(ids):
        raise CommandRefused(f"CLIENT KILL was refused: {refused[0]}. Allow it to the user of REDIS_URL.")
    return len(ids) - len(refused)


def find_connections(listing: Any, pids: set[int]) -> list[str]:
    r"""Return the ids of the connections of some processes in a reply of CLIENT LIST.

    Example:
        >>> find_connections(b"id=3 addr=x name=headrace:host:17:jobs:w\nid=4 name=headrace:host:18:jobs:w", {17})
        ['3']
    """
    text = listing if isinstance(listing, bytes) else getattr(listing, "data", b"")
    found: list[str] = []
    for line in text.decode("utf-8", "replace").splitlines():
        facts = dict(part.partition("=")[::2] for part in line.split(" "))
        parts = facts.get("name", "").split(":")
        if parts[0] == "headrace" and len(parts) > 2 and parts[2].isdigit() and int(parts[2]) in pids:  # noqa: PLR2004 - name, host, process
            found.append(facts.get("id", ""))
    return found
