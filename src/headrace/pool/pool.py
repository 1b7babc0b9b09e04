"""The pool of one app: a bounded number of links, each in a lane of its own.

A link is shared by all callers of its purpose (see `headrace.pool.link`), so an app needs few of them: one for users,
one for control, and for each worker one for jobs and one that blocks. What the pool adds is the bound, the lanes and
the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.errors import PoolClosed, PoolTimeout
from headrace.pool.link import Lane, Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census
    from headrace.pool.address import Address


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The pool at one moment. `active` are links with replies to come; `waiting` counts calls without an open link."""

    maximum: int
    total: int
    active: int
    idle: int
    opening: int
    waiting: int
    opened_total: int
    failed_total: int
    calls_total: int
    lanes: dict[str, int]


class Pool:
    """Own the links of one app and never hold more than `maximum`.

    Args:
        address: Where the server is.
        maximum: Most links, 4..10000.
        census: Where open connections are counted.
        client_name: Start of the names in the server's CLIENT LIST.
    """

    def __init__(self, address: Address, *, maximum: int, census: Census, client_name: str) -> None:
        self.address = address
        self.maximum = maximum
        self._census = census
        self._client_name = client_name
        self._links: list[Link] = []
        self._closed_calls = self._closed_opened = self._closed_failed = 0
        self._closed = False

    def link(
        self,
        lane: Lane,
        purpose: str,
        *,
        owner: str,
        on_push: Callable[[bytes, bytes], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        address: Address | None = None,
    ) -> Link:
        """Return a new link; it opens on first use and belongs to the caller until `release`.

        With an `address` it leads there, such as to one node of a cluster, and counts as any other.

        Raises:
            PoolTimeout: The pool holds its maximum; the error names the holders.
            PoolClosed: The pool was closed.
        """
        if self._closed:
            raise PoolClosed(f"The pool of '{self._client_name}' is closed. Open the app again.")
        if len(self._links) >= self.maximum:
            holders = ", ".join(sorted({f"{link.owner} ({link.lane})" for link in self._links})[:8])
            text = f"lane '{lane}' has no connection left: {len(self._links)} of {self.maximum} in use by {holders}"
            raise PoolTimeout(text + ". Raise REDIS_MAX_CONNECTIONS or run fewer workers in this process.")
        name = f"{self._client_name}:{lane}:{purpose}".replace(" ", "-")
        link = Link(
            address or self.address,
            lane,
            name=name,
            census=self._census,
            owner=owner,
            on_push=on_push,
            on_reopen=on_reopen,
            on_lost=on_lost,
        )
        self._links.append(link)
        return link

    async def release(self, link: Link) -> None:
        """Close a link and give its place back. Safe to call again."""
        if link in self._links:
            self._links.remove(link)
            self._closed_calls += link.calls_total
            self._closed_opened += link.opened_total
            self._closed_failed += link.failed_total
        await link.close()

    def stats(self) -> PoolStats:
        """Count the links by what they do now."""
        links = self._links
        lanes: dict[str, int] = {str(lane): 0 for lane in Lane}
        for link in links:
            if link.is_open:
                lanes[link.lane] += 1
        total = sum(lanes.values())
        active = sum(1 for link in links if link.outstanding)
        return PoolStats(
            maximum=self.maximum,
            total=total,
            active=active,
            idle=total - active,
            opening=sum(1 for link in links if link.is_opening),
            waiting=sum(link.waiting for link in links if not link.is_open),
            opened_total=self._closed_opened + sum(link.opened_total for link in links),
            failed_total=self._closed_failed + sum(link.failed_total for link in links),
            calls_total=self._closed_calls + sum(link.calls_total for link in links),
            lanes=lanes,
        )

    async def close(self) -> None:
        """Close all links; calls under way end with PoolClosed. Safe to call again."""
        self._closed = True
        while self._links:
            await self.release(self._links[-1])

    def __repr__(self) -> str:
        """Return the figures, without credentials."""
        return f"<Pool {self.address} {self.stats().total}/{self.maximum}>"
