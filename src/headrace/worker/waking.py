"""Wait for jobs without polling: one blocking call for all queues that this worker could take jobs from.

A blocking call reaches the keys of one slot, so that in a cluster there is one call, on a connection of its own, for
each slot: a worker of twenty queues has twenty. They are bounded by the blocking lane of the pool.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from headrace.errors import CommandRefused, ConnectionLost, HeadraceError
from headrace.pool.link import Lane
from headrace.resp import pack_command

if TYPE_CHECKING:
    from headrace.pool.carrier import Carrier
    from headrace.worker.flights import Flights
    from headrace.worker.host import Host
    from headrace.worker.served import Served

logger = logging.getLogger(__name__)

#: A blocking call ends after this long and is made anew, so that a half-open connection is found, seconds.
BLOCK: Final = 30.0
#: So long a refused call waits for its repetition, seconds.
REFUSED_WAIT: Final = 0.5


class Wakings:
    """All blocking calls of one worker: one on one server, one each slot in a cluster.

    Args:
        host: The app.
        worker: Id of the worker.
        queues: The queues that the worker serves, by name.
        flights: Kicked when a queue has jobs.

    Raises:
        PoolTimeout: The blocking lane has no place left for a connection.
    """

    def __init__(self, host: Host, worker: str, queues: dict[str, Served], flights: Flights) -> None:
        self._host = host
        self.parts: list[Waking] = []
        for group in host.store.slot_groups(list(queues)):
            link = host.links.link(Lane.BLOCKING, f"worker-{worker}", owner="worker")
            self.parts.append(Waking(host, link, worker, {name: queues[name] for name in group}, flights))

    @property
    def blocked(self) -> frozenset[bytes]:
        """The lists that the calls under way block on, those of the worker alone left out."""
        return frozenset().union(*(waking.blocked for waking in self.parts))

    def changed(self) -> None:
        """Look again whether to block, and on what."""
        for waking in self.parts:
            waking.changed()

    async def forget(self) -> None:
        """Delete the lists of this worker; raises ConnectionLost."""
        for waking in self.parts:
            await waking.forget()

    async def release(self) -> None:
        """Give the links back."""
        for waking in self.parts:
            await self._host.links.release(waking.link)


class Waking:
    """Block on the wake lists of the queues of one slot while there is room and nothing known to be waiting.

    Args:
        host: The app.
        link: Connection of the blocking lane.
        worker: Id of the worker.
        queues: The queues that the worker serves, by name.
        flights: Kicked when a queue has jobs.
    """

    def __init__(self, host: Host, link: Carrier, worker: str, queues: dict[str, Served], flights: Flights) -> None:
        self.link = link
        self._host = host
        self._queues = queues
        self._flights = flights
        self._store = host.store
        self._by_key = {served.calls.wake: served for served in queues.values()}
        #: The list of this worker alone, in the slot of its first queue.
        self._own = next(iter(queues.values())).calls.keys.own_wake(worker).encode()
        self._changed = asyncio.Event()
        self._parked = False
        #: What the call under way blocks on, and whether it was told to end.
        self.blocked: frozenset[bytes] = frozenset()
        self._called_back = False

    def changed(self) -> None:
        """Look again whether to block, and on what: a queue went cold, a slot came free, or a queue was resumed."""
        if self._parked:
            self._changed.set()
        elif self.blocked and not self._called_back and not self.blocked.issuperset(self._keys()):
            # Why: a queue that was paused, or at its limit, when the call began is not in it; its wake-ups go unheard.
            self._called_back = True
            _ = self._host.census_book.create_task(
                self._call_back(), name="block on more queues", owner="worker", expected=(HeadraceError,)
            )

    async def run(self) -> None:
        """Block, wake, repeat, until cancelled."""
        while True:
            keys = [] if self._flights.hungry() else self._keys()
            if not keys:
                await self._park()
                continue
            self.blocked, self._called_back = frozenset(keys), False
            try:
                payload = pack_command("BLPOP", *keys, self._own, str(BLOCK))
                (answer,) = await self.link.roundtrip(payload, 1, timeout=BLOCK + 5)
            except ConnectionLost as error:
                logger.warning("waiting for jobs was cut; it goes on", extra={"reason": str(error)[:300]})
                self._ask_all()
                await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, no secret
                continue
            finally:
                self.blocked = frozenset()
            if isinstance(answer, list):
                if answer[0] in self._by_key:
                    await self._woken(self._by_key[answer[0]])
            elif isinstance(answer, Exception):
                logger.warning("waiting for jobs was refused; it is tried again", extra={"reason": str(answer)[:300]})
                # Why: one queue whose list cannot be read would keep the wake-ups of all others from this worker.
                self._ask_all()
                await asyncio.sleep(REFUSED_WAIT)

    async def forget(self) -> None:
        """Delete the list of this worker; raises ConnectionLost."""
        await self._host.control.roundtrip(pack_command("UNLINK", self._own), 1, timeout=5.0)

    def _keys(self) -> list[bytes]:
        return [served.calls.wake for served in self._queues.values() if self._waits_for(served)]

    def _ask_all(self) -> None:
        for served in self._queues.values():
            served.heat()
        self._flights.kick()

    async def _call_back(self) -> None:
        """End the blocking call: a token in the list of this worker, which expires if it comes too late."""
        token = pack_command("RPUSH", self._own, "1") + pack_command("PEXPIRE", self._own, round(BLOCK * 1000))
        try:
            await self._host.control.roundtrip(token, 2)
        except HeadraceError:
            self._called_back = False
            raise

    async def _woken(self, served: Served) -> None:
        served.heat()
        if self._flights.can_take(served):
            self._flights.kick()
            await self._park()
            return
        # Why: the slots filled while this call was blocked; the turn goes on to a worker that has room.
        try:
            await self._store.promote(self.link, served.name)
        except (ConnectionLost, CommandRefused) as error:
            logger.warning("a wake-up could not be passed on; the survey does", extra={"reason": str(error)[:300]})

    async def _park(self) -> None:
        self._changed.clear()
        self._parked = True
        try:
            await self._changed.wait()
        finally:
            self._parked = False

    def _waits_for(self, served: Served) -> bool:
        return not served.hot and not served.paused and self._flights.can_take(served)
