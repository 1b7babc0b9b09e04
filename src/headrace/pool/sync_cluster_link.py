"""A cluster as synchronous code reaches it: a blocking link to each node that is needed, shared by threads."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from headrace.errors import ConnectionLost, PoolClosed
from headrace.pool.backoff import Backoff
from headrace.pool.slots import (
    CLUSTER_SLOTS,
    FREE_HOPS,
    OPEN_WAIT,
    PATIENCE,
    PING,
    Batch,
    Place,
    SlotMap,
    parse_slots,
    split_commands,
)
from headrace.pool.sync_link import SyncLink

if TYPE_CHECKING:
    from headrace.pool.address import Address
    from headrace.pool.slots import Part


class SyncClusterLink:
    """Carry commands to the nodes that serve their slots, one node after the other.

    Args:
        address: An address with the credentials of all nodes.
        seeds: Places of some nodes.
        name: Name shown by CLIENT LIST.

    Threads may share it; a forked child opens connections of its own.
    """

    def __init__(self, address: Address, seeds: list[Place] | tuple[Place, ...], *, name: str) -> None:
        self.address = address
        self.name = name
        self._seeds = tuple(seeds)
        self._slots = SlotMap()
        #: Bounded by the nodes of the cluster.
        self._nodes: dict[Place, SyncLink] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and return their replies in the order of the commands; see `ClusterLink.roundtrip`.

        Raises:
            ConnectionLost: No command has an answer; what took effect is unknown.
            CommandRefused: A node refused the login.
            PoolClosed: The link was closed.
        """
        began = time.monotonic()
        batch = Batch(split_commands(payload, count))
        backoff, hops = Backoff(), 0
        backoff.next_wait()
        while True:
            if self._slots.primaries:
                home = self._slots.primaries[0]
                for part in batch.plan(self._slots, home):
                    self._send_part(batch, part, began + timeout)
            if not batch.left:
                break
            end = began + (min(timeout, PATIENCE) if len(batch.left) < count else timeout)
            hops += 1
            if batch.is_redirected and hops <= FREE_HOPS:
                continue
            pause = backoff.next_wait() if self._slots.primaries else 0.0
            if time.monotonic() + pause >= end:
                break
            time.sleep(pause)
            self._refresh()
        return batch.end(f"the cluster at {self.address}")

    def close(self) -> None:
        """Close all connections. Safe to call again."""
        self._closed = True
        for node in list(self._nodes.values()):
            node.close()

    def _send_part(self, batch: Batch, part: Part, deadline: float) -> None:
        node = self._node(part.place)
        try:
            # Why: what fails before the connection is there was not sent, and may go to another node.
            if not node.is_open:
                node.roundtrip(PING, 1, timeout=min(OPEN_WAIT, max(0.001, deadline - time.monotonic())))
        except ConnectionLost as error:
            batch.miss(part, error)
            return
        try:
            left = max(0.001, deadline - time.monotonic())
            batch.take(part, node.roundtrip(part.payload, len(part.indexes), timeout=left))
        except ConnectionLost as error:
            batch.lose(part, error)

    def _node(self, place: Place) -> SyncLink:
        if self._closed:
            raise PoolClosed(f"The link '{self.name}' to {self.address} is closed. Open the app again.")
        if self._pid != os.getpid():
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            node = self._nodes.get(place)
            if node is None:
                node = self._nodes[place] = SyncLink(self.address.node_at(*place), name=self.name)
            return node

    def _refresh(self) -> None:
        """Ask the nodes for the slot map until one tells; nobody answering is no error here."""
        for place in dict.fromkeys((*self._slots.nodes, *self._seeds)):
            try:
                (reply,) = self._node(place).roundtrip(CLUSTER_SLOTS, 1, timeout=OPEN_WAIT)
            except ConnectionLost:
                continue
            slots = parse_slots(reply, place) if isinstance(reply, list) else SlotMap()
            if slots.primaries:
                self._slots = slots
                self._let_go(set(slots.nodes))
                return

    def _let_go(self, known: set[Place]) -> None:
        with self._lock:
            for place in [place for place in self._nodes if place not in known]:
                self._nodes.pop(place).close()
