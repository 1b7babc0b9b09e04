"""Wait for jobs without polling: one blocking call for all queues that this worker could take jobs from."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from headrace.errors import CommandRefused, ConnectionLost
from headrace.resp import pack_command

if TYPE_CHECKING:
    from headrace.pool.link import Link
    from headrace.store.store import Store
    from headrace.worker.flights import Flights
    from headrace.worker.served import Served

logger = logging.getLogger(__name__)

#: A blocking call ends after this long and is made anew, so that a half-open connection is found, seconds.
BLOCK: Final = 30.0


class Waking:
    """Block on the wake lists of the queues while there is room and nothing known to be waiting.

    Args:
        link: Connection of the blocking lane.
        store: Passes a wake-up on.
        queues: The queues that the worker serves, by name.
        flights: Kicked when a queue has jobs.
    """

    def __init__(self, link: Link, store: Store, queues: dict[str, Served], flights: Flights) -> None:
        self._link = link
        self._queues = queues
        self._flights = flights
        self._store = store
        self._by_key = {served.calls.wake: served for served in queues.values()}
        self._changed = asyncio.Event()
        self._parked = False

    def changed(self) -> None:
        """Look again whether to block: a queue went cold, a slot came free, or a queue was resumed."""
        if self._parked:
            self._changed.set()

    async def run(self) -> None:
        """Block, wake, repeat, until cancelled."""
        while True:
            hungry = self._flights.hungry()
            keys = [] if hungry else [served.calls.wake for served in self._queues.values() if self._waits_for(served)]
            if not keys:
                await self._park()
                continue
            try:
                payload = pack_command("BLPOP", *keys, str(BLOCK))
                (answer,) = await self._link.roundtrip(payload, 1, timeout=BLOCK + 5)
            except ConnectionLost as error:
                logger.warning("waiting for jobs was cut; it goes on", extra={"reason": str(error)[:300]})
                for served in self._queues.values():
                    served.hot = True
                self._flights.kick()
                await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, no secret
                continue
            if isinstance(answer, list):
                await self._woken(self._by_key[answer[0]])
            elif isinstance(answer, Exception):
                logger.warning("waiting for jobs was refused; it is tried again", extra={"reason": str(answer)[:300]})
                await asyncio.sleep(0.5)

    async def _woken(self, served: Served) -> None:
        served.hot = True
        if self._flights.can_take(served):
            self._flights.kick()
            await self._park()
            return
        # Why: the slots filled while this call was blocked; the turn goes on to a worker that has room.
        try:
            await self._store.promote(self._link, served.name)
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
