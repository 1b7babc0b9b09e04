"""What synchronous code reaches under one URL: one server, or a cluster, which the first call finds out."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import ConnectionLost, PoolClosed
from headrace.pool.sync_link import SyncLink
from headrace.resp import pack_command

if TYPE_CHECKING:
    from headrace.pool.address import Address
    from headrace.pool.carrier import SyncCarrier

QUESTIONS: Final = pack_command("INFO", "cluster") + pack_command("CLUSTER", "SLOTS")


class SyncRoute:
    """A link to what a URL names, one server or a cluster; the first call finds out which.

    Args:
        address: Where the server, or some node of the cluster, is.
        name: Name shown by CLIENT LIST.
    """

    def __init__(self, address: Address, *, name: str) -> None:
        self.address = address
        self.name = name
        self._carrier: SyncCarrier | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def roundtrip(self, payload: bytes, count: int, *, timeout: float = 30.0) -> list[Any]:
        """Send packed commands and return their replies; see `SyncLink.roundtrip`."""
        carrier = self._carrier
        if carrier is None:
            began = time.monotonic()
            carrier = self._find_once(timeout)
            timeout = max(0.001, timeout - (time.monotonic() - began))
        return carrier.roundtrip(payload, count, timeout=timeout)

    def close(self) -> None:
        """Close the connections. Safe to call again."""
        self._closed = True
        if self._carrier is not None:
            self._carrier.close()

    def _find_once(self, timeout: float) -> SyncCarrier:
        if self._closed:
            raise PoolClosed(f"The link '{self.name}' to {self.address} is closed. Open the app again.")
        if self._pid != os.getpid():
            # Why: a thread of the parent may have held the lock, and there is no such thread in a forked child.
            self._lock, self._pid = threading.Lock(), os.getpid()
        if not self._lock.acquire(timeout=timeout):
            raise ConnectionLost(f"{self.address} was not reached by another thread's first call within {timeout:g} s.")
        try:
            if self._carrier is None:
                self._carrier = self._find(timeout)
            return self._carrier
        finally:
            self._lock.release()

    def _find(self, timeout: float) -> SyncCarrier:
        if self.address.seeds:
            return self._make_cluster(None)
        link = SyncLink(self.address, name=self.name)
        try:
            mode, slots = link.roundtrip(QUESTIONS, 2, timeout=timeout)
        except BaseException:
            link.close()
            raise
        if not isinstance(mode, (bytes, str)) or "cluster_enabled:1" not in str(mode):
            return link
        link.close()
        return self._make_cluster(slots)

    def _make_cluster(self, told: Any) -> SyncCarrier:
        # Why here: only a cluster needs it, and it would cost each import of the package.
        from headrace.pool.slots import Place, parse_slots  # noqa: PLC0415 - as said above
        from headrace.pool.sync_cluster_link import SyncClusterLink  # noqa: PLC0415 - as said above

        here = Place(self.address.host, self.address.port)
        known = parse_slots(told, here).nodes if isinstance(told, list) else ()
        seeds = [Place(*seed) for seed in self.address.seeds] or [*known, here]
        return SyncClusterLink(self.address, seeds, name=self.name)
