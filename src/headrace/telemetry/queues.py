"""The queues as monitoring sees them: asked from the server when somebody looks, and not again for some seconds.

All queues are asked in one round trip, whatever their number, behind one that tells which there are; both go over the
control lane, so they never wait behind jobs. What was asked is not given up when the looker is: that would drop the
connection on which leases are renewed. A late answer serves whoever looks next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import CommandRefused, HeadraceError
from headrace.health.monitor import ASK_TIMEOUT
from headrace.reason import WORKER_SEEN
from headrace.resp import is_no_right
from headrace.store.replies import refuse
from headrace.telemetry.metrics import MAX_QUEUES
from headrace.telemetry.samples import Counted, QueueRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.census import Census
    from headrace.pool.carrier import Carrier
    from headrace.store.replies import Counts
    from headrace.store.store import Store

logger = logging.getLogger(__name__)

#: An answer serves everybody who looks within so long, seconds.
KEEP: Final = 5.0
#: Who looks waits for the server no longer than this, seconds.
WAIT: Final = 0.4


class QueueFigures:
    """Know the queues of one app's server.

    Args:
        store: Asks.
        link: The control link.
        census: Where a question under way is entered.
        first: Returns the names of those queues that come before all others under the bound, and are told of even if
            they were never used.
    """

    def __init__(self, store: Store, link: Carrier, census: Census, first: Callable[[], Iterable[str]]) -> None:
        self._store = store
        self._link = link
        self._census = census
        self._first = first
        self._found = Counted()
        self._found_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        #: Questions that were sent, whatever came of them.
        self.asked_total = 0
        #: Why this user was not told of the queues at the last question; None when it was.
        self.refusal: CommandRefused | None = None

    async def read(self, within: float = WAIT) -> Counted:
        """Return the queues, as of `KEEP` seconds ago at most; nothing of them when the server does not tell in time.

        Args:
            within: Longest wait in seconds.

        It raises nothing because of the server. Cancelling gives up the wait; the question goes on.
        """
        if not self._is_fresh():
            if self._asking is None:
                self._asking = self._census.create_task(self._ask(), name="ask for the queues", owner="telemetry")
            await asyncio.wait({self._asking}, timeout=within)
        return self._found if self._is_fresh() else Counted()

    async def close(self) -> None:
        """Give up what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _is_fresh(self) -> bool:
        # Why the link: what was told a moment ago must not hide that the server is gone now.
        return self._found.up and time.monotonic() - self._found_at < KEEP and self._link.is_open

    async def _ask(self) -> None:
        self.asked_total += 1
        try:
            self._found = await self._look()
        except HeadraceError as error:
            if isinstance(error, CommandRefused) and is_no_right(str(error.__cause__)):
                # The server is there, and this user may not see its queues.
                logger.warning("the server refused to tell of the queues", extra={"reason": str(error)[:300]})
                self._found, self._found_at, self.refusal = Counted(up=True), time.monotonic(), error
                return
            logger.debug("the queues could not be asked for", extra={"reason": str(error)[:300]})
            return
        finally:
            self._asking = None
        self._found_at, self.refusal = time.monotonic(), None

    async def _look(self) -> Counted:
        store, link = self._store, _Patient(self._link)
        used, workers = await asyncio.gather(store.queue_names(link), store.workers(link))
        names = list(dict.fromkeys((*self._first(), *used)))
        told = names[:MAX_QUEUES]
        counts = await store.totals(link, told)
        found = {name: one for name, one in zip(told, counts, strict=True) if not isinstance(one, Exception)}
        if told and not found:
            refuse(counts[0], "stats", str(self._link.address))
        now = max((one.now_ms for one in found.values()), default=0) / 1000 or time.time()
        live = [facts for facts in workers.values() if now - facts.seen < WORKER_SEEN]
        consumers = Counter(queue for facts in live for queue in set(facts.queues))
        return Counted(
            up=True,
            known=len(names),
            rows=[_row(name, one, consumers[name]) for name, one in found.items()],
        )


class _Patient:
    """A link whose calls may take long: nobody waits for them any more, and what comes late still counts."""

    def __init__(self, link: Carrier) -> None:
        self._link = link

    async def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        return await self._link.roundtrip(payload, count, timeout=ASK_TIMEOUT)


def _row(name: str, counts: Counts, consumers: int) -> QueueRow:
    totals = counts.totals
    return QueueRow(
        name=name,
        waiting=counts.waiting,
        delayed=counts.delayed,
        active=counts.active,
        failed=counts.dead,
        cancelled=counts.cancelled,
        paused=counts.paused_since_ms > 0,
        oldest_ms=counts.oldest_ms,
        consumers=consumers,
        leases=counts.workers,
        completed_total=totals.get("completed", 0),
        failed_total=totals.get("failed", 0),
        retried_total=totals.get("retried", 0),
        stalled_total=totals.get("stalled", 0),
        spent_ms_total=totals.get("spent_ms", 0),
    )
