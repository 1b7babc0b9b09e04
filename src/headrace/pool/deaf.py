"""Find the links that have gone deaf: connections that take what is sent and will never be answered.

A proxy or a firewall that forgot its connections may go on to acknowledge what it gets. The system then sees nothing
amiss, and a link that waits for a wake-up would wait to its end. Somebody notices sooner: the probe of the health, or
the renewal of a lease, which gets no answer in time and has one on a new connection.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.census import Census
    from headrace.pool.address import Address
    from headrace.pool.link import Link

logger = logging.getLogger(__name__)

#: A server that stood still answers everybody within so long when it goes on, seconds.
GRACE: Final = 1.0


class DeafWatch:
    """Drop the links of a pool that are deaf.

    Args:
        links: All of the pool.
        census: Where the look at them is entered.
    """

    def __init__(self, links: Sequence[Link], census: Census) -> None:
        self._links = links
        self._census = census
        # At most one look a server: what another one would find, this one finds.
        self._looking: dict[Address, asyncio.Task[None]] = {}
        self._closed = False

    def note(self, silent: Link) -> Callable[[], None]:
        """Remember what all links had heard when one of them got no answer.

        Args:
            silent: The one that got none.

        Returns:
            What to call when the server has answered the silent one on a new connection: those that have heard nothing
            from the same server meanwhile, nor within GRACE, are dropped, and open again when they are used.
        """
        server = silent.address
        heard = {link: _heard(link) for link in self._links if link.is_open and link.address == server}
        heard.pop(silent, None)

        def answered() -> None:
            # Why not once closed: the silent link may be answered while the pool closes, and nobody waits for it then.
            if server not in self._looking and not self._closed:
                self._looking[server] = self._census.create_task(
                    self._look(server, heard), name="look for deaf connections", owner="pool app"
                )

        return answered

    async def close(self) -> None:
        """Look no more."""
        self._closed = True
        looking = list(self._looking.values())
        for look in looking:
            look.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    async def _look(self, server: Address, heard: dict[Link, tuple[int, int]]) -> None:
        try:
            await asyncio.sleep(GRACE)
            deaf = [link for link, before in heard.items() if link.is_open and _heard(link) == before]
            for link in deaf:
                link.drop()
        finally:
            del self._looking[server]
        if deaf:
            logger.warning(
                "connections that nobody answers were dropped",
                extra={"connections": len(deaf), "first": deaf[0].name, "server": str(server)},
            )


def _heard(link: Link) -> tuple[int, int]:
    return link.opened_total, link.answered_total
