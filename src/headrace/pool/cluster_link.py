"""One link to all nodes of a cluster: commands go where their slots are, replies come back in order.

What was not sent, or was refused with a redirect, is sent again by the link itself until the call's time is up. What
was sent and got no reply may have taken effect, which only the caller can judge: it ends with `ConnectionLost`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import CommandRefused, ConnectionLost, HeadraceError, PoolClosed
from headrace.pool.backoff import Backoff
from headrace.pool.lanes import Lane
from headrace.pool.slots import FREE_HOPS, OPEN_WAIT, PATIENCE, PING, Batch, split_commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.pool.address import Address
    from headrace.pool.cluster import Cluster
    from headrace.pool.link import Link
    from headrace.pool.slots import Part, Place, SlotMap

logger = logging.getLogger(__name__)

#: Once one node has answered a batch of several, the others get this long, seconds; what they are asked may wait.
PART_TIMEOUT: Final = 2.0
#: Longest wait for a connection to a node that was lost, while other nodes have their part of the batch, seconds.
GONE_WAIT: Final = 0.05
#: So long a lost connection with subscriptions may come back by itself before another node takes its place, seconds.
REHOME_AFTER: Final = 0.2


class ClusterLink:
    """One purpose of one lane on all nodes of a cluster; made by `Cluster.link`.

    It holds at most one connection to each node. Subscriptions are on one of them: the nodes pass messages on to each
    other. When that node is gone, another takes its place.
    """

    def __init__(
        self,
        cluster: Cluster,
        lane: Lane,
        purpose: str,
        *,
        owner: str,
        on_push: Callable[[bytes, bytes], None] | None,
        on_reopen: Callable[[], None] | None,
        on_lost: Callable[[], None] | None,
    ) -> None:
        self.on_roundtrip: Callable[[float], None] | None = None
        self.on_error: Callable[[str], None] | None = None
        self.last_failure = ""
        self.opened_total = 0
        self.lane = lane
        self.purpose = purpose
        self.owner = owner
        self._cluster = cluster
        self._on_push = on_push
        self._on_reopen = on_reopen
        self._on_lost = on_lost
        #: Bounded by the nodes of the cluster; those without a slot are let go.
        self._nodes: dict[Place, Link] = {}
        self._home: Place | None = None
        #: Bounded by the queues that are served.
        self._channels: set[str] = set()
        #: The subscriptions have left a node, so that messages may have been lost until another one has them.
        self._unheard = False
        self._rehoming: asyncio.Task[None] | None = None
        self._closed = False
        #: A worker takes turns for the queues of all nodes on its jobs lane: what one node does not take within
        #: `PATIENCE` is handed back, so that the others go on.
        self._takes_turns = lane is Lane.JOBS

    def __repr__(self) -> str:
        """Name the lane, the purpose and the nodes."""
        return f"<ClusterLink {self.lane}:{self.purpose} to {', '.join(map(str, self._nodes)) or 'no node yet'}>"

    @property
    def address(self) -> Address:
        """The nodes that the URL names."""
        return self._cluster.pool.address

    @property
    def is_open(self) -> bool:
        """Whether the node of the subscriptions and of commands without a key is connected."""
        return self._home is not None and self.open_node(self._home) is not None

    async def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands to the nodes that serve them and return the replies in the order of the commands.

        Args:
            payload: Packed commands; all keys of one command are in one slot.
            count: How many they are.
            timeout: Longest time in seconds for all of it, redirects and the wait for a failover included.

        Returns:
            The replies. The error of a command that was refused stands in its place, and so does a ConnectionLost of
            the commands of a node whose replies did not come while others did, or which belong to the jobs lane.

        Raises:
            ConnectionLost: No command has an answer; what took effect is unknown.
            CommandRefused: A node refused the login.
            PoolClosed: The link was closed.
            PoolTimeout: The pool has no place left for the connection to a node.
        """
        began = time.monotonic()
        batch = Batch(split_commands(payload, count))
        backoff, hops = Backoff(), 0
        backoff.next_wait()
        while True:
            slots = self._cluster.slots
            await self._send(batch, batch.plan(slots, self._choose_home()), began + timeout)
            if not batch.left:
                break
            # Why: one slot that is on the move must not hold up what the other nodes have answered.
            is_urged = self._takes_turns or len(batch.left) < count
            end = began + (min(timeout, PATIENCE) if is_urged else timeout)
            if is_urged and batch.is_missed:
                break
            hops += 1
            if batch.is_redirected and hops <= FREE_HOPS:
                self._cluster.refresh_soon(slots)
                continue
            pause = backoff.next_wait()
            if time.monotonic() + pause >= end:
                break
            await asyncio.sleep(pause)
            await self._refresh(slots, end)
        replies = batch.end(f"the cluster at {self._cluster.pool.address}", all_lost=self._takes_turns)
        if self.on_roundtrip is not None:
            self.on_roundtrip(time.monotonic() - began)
        return replies

    async def subscribe(self, channels: Iterable[str], *, timeout: float = 10.0) -> None:
        """Subscribe to channels on one node, now and on another one when it is gone.

        Raises:
            ConnectionLost: No node took the subscription in time.
            CommandRefused: This user may not listen to one of them.
        """
        deadline = time.monotonic() + timeout
        names = list(channels)
        self._channels.update(names)
        while True:
            slots, home = self._cluster.slots, self._choose_home()
            left = max(0.001, deadline - time.monotonic())
            try:
                await self._node(home).subscribe(sorted(self._channels), timeout=min(left, PART_TIMEOUT))
            except (ConnectionLost, PoolClosed):
                if self._closed or time.monotonic() >= deadline:
                    raise
            except CommandRefused:
                self._channels.difference_update(names)
                raise
            else:
                break
            self._leave_home(home)
            await self._refresh(slots, deadline)
        if self._unheard and self._home == home:
            self._unheard = False
            self.look_again()

    async def close(self) -> None:
        """Close all connections; calls under way end with PoolClosed. Safe to call again."""
        self._closed = True
        rehoming, self._rehoming = self._rehoming, None
        if rehoming is not None:
            rehoming.cancel()
            await asyncio.gather(rehoming, return_exceptions=True)
        while self._nodes:
            _, node = self._nodes.popitem()
            await self._cluster.pool.release(node)

    def open_node(self, place: Place) -> Link | None:
        """Return the open link to a node, or None."""
        node = self._nodes.get(place)
        return node if node is not None and node.is_open else None

    def slots_moved(self) -> None:
        """Let go of nodes that serve no slots any more, and look again: messages may have been lost meanwhile."""
        serving = set(self._cluster.slots.primaries)
        for place, node in list(self._nodes.items()):
            if place not in serving and place != self._home and (not node.is_open or not node.outstanding):
                self._let_go(place)
        if self._on_reopen is not None:
            self._on_reopen()

    def look_again(self) -> None:
        """Tell whoever subscribed that messages may have been lost."""
        if self._channels and self._on_reopen is not None:
            self._on_reopen()

    # Sending

    async def _send(self, batch: Batch, parts: list[Part], deadline: float) -> None:
        if not parts:
            return
        if len(parts) > 1:
            deadline = min(deadline, time.monotonic() + PART_TIMEOUT)
        create_task = self._cluster.census.create_task
        tasks = [
            create_task(
                self._send_part(batch, part, deadline, shared=True),
                name=f"send to {part.place}",
                owner=self.owner,
                expected=(HeadraceError,),
            )
            for part in parts[1:]
        ]
        try:
            await self._send_part(batch, parts[0], deadline, shared=self._takes_turns or bool(tasks))
            for task in tasks:
                await task
        finally:
            for task in tasks:
                task.cancel()

    async def _send_part(self, batch: Batch, part: Part, deadline: float, *, shared: bool) -> None:
        node = self._node(part.place)
        try:
            if not node.is_open:
                # Why: what fails before the connection is there was not sent, and may go to another node.
                left = max(0.001, deadline - time.monotonic())
                most = GONE_WAIT if shared and part.place in self._cluster.suspects else OPEN_WAIT
                await node.roundtrip(PING, 1, timeout=min(most, left))
                self.opened_total += 1
                self.last_failure = ""
        except (ConnectionLost, PoolClosed) as error:
            self._failed(error)
            self.last_failure = node.last_failure or str(error)
            self._cluster.lost(part.place)
            batch.miss(part, ConnectionLost(str(error)))
            return
        try:
            left = max(0.001, deadline - time.monotonic())
            replies = await node.roundtrip(part.payload, len(part.indexes), timeout=left)
        except (ConnectionLost, PoolClosed) as error:
            self._failed(error)
            batch.lose(part, ConnectionLost(str(error)))
            self._cluster.lost(part.place)
        else:
            self._cluster.suspects.discard(part.place)
            batch.take(part, replies)

    def _failed(self, error: HeadraceError) -> None:
        """Tell of an error; one of a link that was closed for good is raised, one that was let go is made anew."""
        if self._closed:
            raise error
        if self.on_error is not None:
            self.on_error(type(error).__name__)

    async def _refresh(self, slots: SlotMap, deadline: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._cluster.refresh(slots)
        except TimeoutError:
            logger.debug("the slots were not told in time")

    def _node(self, place: Place) -> Link:
        if self._closed:
            raise PoolClosed(f"The link '{self.purpose}' to the cluster is closed. Open the app again.")
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = self._cluster.pool.link(
                self.lane,
                f"{self.purpose}@{place}",
                owner=self.owner,
                on_push=self._on_push,
                on_reopen=self._on_reopen,
                on_lost=lambda: self._node_lost(place),
                address=self._cluster.address_of(place),
            )
        return node

    def _let_go(self, place: Place) -> None:
        node = self._nodes.pop(place, None)
        if node is not None:
            _ = self._cluster.census.create_task(
                self._cluster.pool.release(node), name=f"let go of {place}", owner=self.owner
            )

    # Home: the node of the subscriptions and of commands without a key

    def _choose_home(self) -> Place:
        suspects = self._cluster.suspects
        if self._home is None or (self._home in suspects and not self._channels):
            known = tuple(dict.fromkeys(self._cluster.slots.primaries)) or self._cluster.seeds
            self._home = random.choice([place for place in known if place not in suspects] or known)  # noqa: S311 - spreads load
        return self._home

    def _leave_home(self, home: Place) -> None:
        """Choose another node, unless somebody else has done so; the old one is let go, or it would subscribe again."""
        if self._home == home:
            self._cluster.suspects.add(home)
            self._home = None
            self._unheard = True
            self._let_go(home)

    def _node_lost(self, place: Place) -> None:
        if self._closed:
            return
        self._cluster.lost(place)
        if self._on_lost is not None:
            self._on_lost()
        if place == self._home and self._channels and self._rehoming is None:
            self._rehoming = self._cluster.census.create_task(
                self._rehome(place), name="subscribe on another node", owner=self.owner, expected=(HeadraceError,)
            )

    async def _rehome(self, home: Place) -> None:
        try:
            await asyncio.sleep(REHOME_AFTER)
            # Bound: one attempt of `subscribe` a turn; it ends when a node takes the subscriptions.
            while self._home == home and self.open_node(home) is None:
                self._leave_home(home)
                try:
                    await self.subscribe(list(self._channels))
                except ConnectionLost as error:
                    logger.warning("no node takes the subscriptions yet", extra={"reason": str(error)[:300]})
                    home = self._choose_home()
        finally:
            self._rehoming = None
