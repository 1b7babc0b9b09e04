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
        # At most one look: what another one would find, this one finds.
        self._looking: asyncio.Task[None] | None = None

    def note(self, silent: Link) -> Callable[[], None]:
        """Remember what all links had heard when one of them got no answer.

        Args:
            silent: The one that got none.

        Returns:
            What to call when the server has answered the silent one on a new connection: those that have heard nothing
            from the same server meanwhile, nor within GRACE, are dropped, and open again when they are used.
        """
        heard = {link: _heard(link) for link in self._links if link.is_open and link.address == silent.address}
        heard.pop(silent, None)

        def answered() -> None:
            if self._looking is None:
                self._looking = self._census.create_task(
                    self._look(heard), name="look for deaf connections", owner="pool app"
                )

        return answered

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self, heard: dict[Link, tuple[int, int]]) -> None:
        try:
            await asyncio.sleep(GRACE)
            deaf = [link for link, before in heard.items() if link.is_open and _heard(link) == before]
            for link in deaf:
                link.drop()
        finally:
            self._looking = None
        if deaf:
            logger.warning(
                "connections that nobody answers were dropped",
                extra={"connections": len(deaf), "first": deaf[0].name, "server": str(deaf[0].address)},
            )


def _heard(link: Link) -> tuple[int, int]:
    return link.opened_total, link.answered_total
