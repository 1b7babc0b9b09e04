"""Hear from a sentinel that the primary was replaced, and have the links of an app go there at once.

Without it a link notices when its connection ends or refuses a write. That is late when the old primary is still there:
one that hangs, whose host is out of reach, or that an orderly failover leaves running for some seconds.

Source: "Guidelines for Redis clients with support for Redis Sentinel" (Pub/Sub), as in `headrace.pool.sentinel`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from headrace.errors import CommandRefused, ConnectionLost, HeadraceError
from headrace.pool.lanes import Lane
from headrace.pool.link import Link
from headrace.pool.sentinel import locate

if TYPE_CHECKING:
    from headrace.census import Census
    from headrace.pool.address import Address

logger = logging.getLogger(__name__)

#: Where a sentinel tells `name old-host old-port new-host new-port`.
CHANNEL: Final = "+switch-master"
WORDS: Final = 5


class SentinelWatch:
    """Listen to one sentinel of an address, and to another when that one is gone; do nothing for an address without.

    It holds one connection, to a sentinel and so beside the pool, whose bound is on connections to the server.

    Args:
        address: The links that were made with the same object follow.
        census: Where the connection is counted.
    """

    def __init__(self, address: Address, census: Census) -> None:
        self._address = address
        self._census = census
        self._link: Link | None = None

    def start(self) -> None:
        """Begin to listen, in the background; while no sentinel can be reached it is tried again and again."""
        if self._address.sentinels is None:
            return
        self._link = link = Link(
            self._address.watch_address(),
            Lane.CONTROL,
            name="sentinel",
            census=self._census,
            owner="app",
            on_push=self._heard,
            on_reopen=self._check_soon,
        )
        _ = self._census.create_task(_listen(link), name="listen to a sentinel", owner="app", expected=(HeadraceError,))

    async def close(self) -> None:
        """Stop listening. Safe to call again."""
        if self._link is not None:
            await self._link.close()

    def _heard(self, _channel: bytes, message: bytes) -> None:
        sentinels = self._address.sentinels
        words = message.decode("utf-8", "replace").split(" ")
        # Why: the name of a primary may hold spaces.
        name, place = " ".join(words[: 1 - WORDS]), words[1 - WORDS :]
        if sentinels is None or name != sentinels.service or len(place) != WORDS - 1 or not place[-1].isdigit():
            return
        told_by = None if self._link is None else self._link.place
        if told_by is not None:
            # Why: the other sentinels hear of it later, and would send links back.
            sentinels.trust((told_by.host, told_by.port))
        logger.warning("primary was replaced", extra={"primary": name, "before": place[1], "now": ":".join(place[2:])})
        sentinels.switched(place[2], int(place[3]))

    def _check_soon(self) -> None:
        """Look for what was told while nobody listened."""
        _ = self._census.create_task(self._check(), name="look for the primary", owner="app", expected=(HeadraceError,))

    async def _check(self) -> None:
        try:
            place = await locate(self._address)
        except ConnectionLost as error:
            logger.debug("no sentinel answers", extra={"reason": str(error)[:300]})
            return
        if self._address.sentinels is not None:
            self._address.sentinels.switched(place.host, place.port)


async def _listen(link: Link) -> None:
    try:
        await link.subscribe([CHANNEL])
    except CommandRefused as error:
        logger.warning("sentinels cannot be listened to", extra={"reason": str(error)[:300]})
