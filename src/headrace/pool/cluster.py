"""A cluster as the engine reaches it: a link to each node that is needed, and one slot map for all of them.

A `ClusterLink` stands where a `Link` stands with one server. It sends each command to the node that serves its slot,
follows redirects, and puts the replies together again in the order of the commands (`headrace.pool.cluster_link`). Each
of its connections is a link of the pool, within the pool's bound and its lanes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import CommandRefused, ConnectionLost, HeadraceError, SettingError
from headrace.pool.cluster_link import ClusterLink
from headrace.pool.connection import ServerReplyError
from headrace.pool.lanes import Lane
from headrace.pool.slots import CLUSTER_SLOTS, Place, SlotMap, parse_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.census import Census
    from headrace.pool.address import Address
    from headrace.pool.pool import Pool

logger = logging.getLogger(__name__)

#: The slot map is asked for at most so often, seconds, and one node is given so long to tell it.
REFRESH_GAP: Final = 0.1
REFRESH_TIMEOUT: Final = 1.0
#: The slot map is asked for this often without a reason, seconds.
CHECK_INTERVAL: Final = 5.0
#: So often subscribers look again for messages that may have been lost between the nodes, seconds.
LOOK_AGAIN: Final = 30.0


class Cluster:
    """The nodes of one cluster, as one app sees them.

    Args:
        pool: Opens and bounds the links.
        seeds: Places of some nodes; any that answers will do.
        census: Where tasks are counted.
    """

    def __init__(self, pool: Pool, seeds: Sequence[Place], *, census: Census) -> None:
        self.pool = pool
        self.census = census
        self.seeds = tuple(seeds)
        self.slots = SlotMap()
        #: Nodes whose connection was lost since they were last heard of; bounded by the nodes.
        self.suspects: set[Place] = set()
        self.refreshed_total = 0
        self._links: list[ClusterLink] = []
        self._refreshing: asyncio.Task[None] | None = None
        #: Why the node that was asked last did not tell, None when it did.
        self._failure: Exception | None = None
        self._last_refresh = 0.0
        self._looked = time.monotonic()
        self._turn = 0
        self._closed = False

    async def open(self, timeout: float) -> None:
        """Learn who serves which slots, and divide the pool for that many nodes.

        Args:
            timeout: Longest wait in seconds.

        Raises:
            ConnectionLost: No seed told in time.
            CommandRefused: A seed refused the login, or the question.
            SettingError: The pool is too small for the nodes.
        """
        deadline = time.monotonic() + timeout
        while not self.slots.primaries:
            await self.refresh(self.slots)
            if isinstance(self._failure, CommandRefused):
                raise self._failure
            if not self.slots.primaries and time.monotonic() >= deadline:
                seeds = ", ".join(map(str, self.seeds))
                text = f"no node of the cluster told its slots within {timeout:g} s; asked were {seeds}"
                text += ". Check that one of them runs, and that CLUSTER INFO there says ok."
                raise ConnectionLost(text) from self._failure
        nodes = len(set(self.slots.primaries))
        if self.pool.maximum < smallest_maximum(nodes):
            text = f"REDIS_MAX_CONNECTIONS={self.pool.maximum}: a cluster of {nodes} primaries needs at least "
            raise SettingError(
                f"{text}{smallest_maximum(nodes)}, some for each node in each lane. Raise it.",
                variable="REDIS_MAX_CONNECTIONS",
                value=str(self.pool.maximum),
            )
        await self._share_lanes()

    def link(
        self,
        lane: Lane,
        purpose: str,
        *,
        owner: str,
        on_push: Callable[[bytes, bytes], None] | None = None,
        on_reopen: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> ClusterLink:
        """Return a new link to all nodes; it opens each connection on first use and belongs to the caller."""
        link = ClusterLink(self, lane, purpose, owner=owner, on_push=on_push, on_reopen=on_reopen, on_lost=on_lost)
        self._links.append(link)
        return link

    async def release(self, link: ClusterLink) -> None:
        """Close a link and give its places in the pool back. Safe to call again."""
        if link in self._links:
            self._links.remove(link)
        await link.close()

    async def close(self) -> None:
        """Close all links. Safe to call again."""
        self._closed = True
        refreshing, self._refreshing = self._refreshing, None
        if refreshing is not None:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)
        while self._links:
            await self.release(self._links[-1])

    def address_of(self, place: Place) -> Address:
        """Return the address of a node, with the credentials of the URL."""
        return self.pool.address.node_at(*place)

    async def check(self) -> None:
        """Ask for the slot map, and have what may have gone unheard looked at again: a duty of the clock.

        Nodes pass messages on to each other without a promise, so that a subscriber's own connection may be sound
        while a message was lost on the way to it.
        """
        await self.refresh(self.slots)
        if time.monotonic() >= self._looked + LOOK_AGAIN:
            self._looked = time.monotonic()
            for link in list(self._links):
                link.look_again()

    def lost(self, place: Place) -> None:
        """Note that a connection to a node was lost, and look who serves its slots now."""
        self.suspects.add(place)
        self.refresh_soon(self.slots)

    def refresh_soon(self, stale: SlotMap) -> None:
        """Ask for the slot map in the background, if it is still the stale one and nobody asks already."""
        if self.slots is stale and not self._closed:
            _ = self._refreshing or self._start_refresh()

    async def refresh(self, stale: SlotMap) -> None:
        """Ask for the slot map, once for all who find the same one stale; nobody answering is no error here."""
        if self.slots is stale and not self._closed:
            await asyncio.shield(self._refreshing or self._start_refresh())

    def _start_refresh(self) -> asyncio.Task[None]:
        self._refreshing = self.census.create_task(
            self._refresh(), name="ask for the slots of the cluster", owner="pool", expected=(HeadraceError,)
        )
        return self._refreshing

    async def _refresh(self) -> None:
        try:
            # Why: those who find a node gone come back often until its replica has taken over.
            await asyncio.sleep(max(0.0, self._last_refresh + REFRESH_GAP - time.monotonic()))
            for place in self._whom_to_ask():
                try:
                    (reply,) = await self._ask(place)
                    if isinstance(reply, ServerReplyError):
                        raise CommandRefused(f"{place} refused CLUSTER SLOTS: {reply.text}. Allow it to this user.")
                    slots = parse_slots(reply, place)
                except (HeadraceError, TypeError, ValueError, IndexError) as error:
                    logger.debug(
                        "a node did not tell the slots", extra={"node": str(place), "reason": str(error)[:300]}
                    )
                    self._failure = error
                    continue
                self._failure = None
                self.suspects.discard(place)
                if slots.primaries:
                    await self._take(slots)
                    return
        finally:
            self._last_refresh = time.monotonic()
            self._refreshing = None

    def _whom_to_ask(self) -> list[Place]:
        """Return all known nodes, another one first each time: one that is cut off may tell what was true long ago."""
        known = list(dict.fromkeys((*self.slots.nodes, *self.seeds)))
        self._turn = (self._turn + 1) % len(known)
        turned = known[self._turn :] + known[: self._turn]
        return sorted(turned, key=lambda place: place in self.suspects)

    async def _ask(self, place: Place) -> list[Any]:
        for link in self._links:
            node = link.open_node(place)
            if node is not None and link.lane == Lane.CONTROL:
                return await node.roundtrip(CLUSTER_SLOTS, 1, timeout=REFRESH_TIMEOUT)
        node = self.pool.link(Lane.CONTROL, f"slots@{place}", owner="pool", address=self.address_of(place))
        try:
            return await node.roundtrip(CLUSTER_SLOTS, 1, timeout=REFRESH_TIMEOUT)
        finally:
            await self.pool.release(node)

    async def _take(self, slots: SlotMap) -> None:
        self.refreshed_total += 1
        if slots == self.slots:
            return
        before, self.slots = self.slots, slots
        if before.primaries:
            if len(set(before.primaries)) < len(set(slots.primaries)):
                await self._share_lanes()
            logger.warning(
                "the cluster's slots moved; calls follow them",
                extra={"primaries": ",".join(map(str, dict.fromkeys(slots.primaries)))},
            )
            for link in list(self._links):
                link.slots_moved()

    async def _share_lanes(self) -> None:
        nodes = len(set(self.slots.primaries))
        if self.pool.maximum < smallest_maximum(nodes):
            logger.error(
                "the pool is too small for the nodes of the cluster; raise REDIS_MAX_CONNECTIONS",
                extra={"maximum": self.pool.maximum, "needed": smallest_maximum(nodes), "primaries": nodes},
            )
            return
        shares = cluster_shares(self.pool.maximum, nodes)
        await self.pool.resize(lanes={str(lane): share for lane, share in shares.items()})


def smallest_maximum(nodes: int) -> int:
    """Return the smallest pool for a cluster: in each lane one for each primary, and one for a replica that takes over.

    Example:
        >>> smallest_maximum(3)
        17
    """
    return 4 * (nodes + 1) + 1


def cluster_shares(maximum: int, nodes: int) -> dict[Lane, int]:
    """Divide the maximum of a pool among the lanes: each needs some for each node, blocking one for each slot served.

    Example:
        >>> {str(lane): share for lane, share in cluster_shares(100, 3).items()}
        {'control': 5, 'blocking': 25, 'jobs': 15, 'user': 55}
        >>> {str(lane): share for lane, share in cluster_shares(17, 3).items()}
        {'control': 5, 'blocking': 4, 'jobs': 4, 'user': 4}
    """
    spare = maximum - smallest_maximum(nodes)
    least = nodes + 1
    shares = {
        Lane.CONTROL: least + 1,
        Lane.BLOCKING: least + min(spare // 3, max(0, maximum // 4 - least)),
        Lane.JOBS: least + min(spare // 3, max(0, maximum * 15 // 100 - least)),
    }
    return {**shares, Lane.USER: maximum - sum(shares.values())}
