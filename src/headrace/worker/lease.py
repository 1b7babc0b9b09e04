"""Keep the leases of a worker, take back the jobs of lost ones, and know when something is due: nothing here polls.

A worker has at most one lease a queue, and only while it holds jobs of it; every round trip of the jobs lane extends
it, and a duty of the process's clock renews those that had none for a quarter of their length.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import CommandRefused, ConnectionLost, PoolClosed
from headrace.store import replies

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.clock import Alarm, Duty
    from headrace.pool.carrier import Carrier
    from headrace.worker.flights import Flights
    from headrace.worker.host import Host
    from headrace.worker.served import Served

logger = logging.getLogger(__name__)

#: Part of a lease after which a worker looks at its queues: often enough to know of every lease before it runs out.
SURVEY_SHARE: Final = 2 / 3
#: Queues in one call of survey.
SURVEY_QUEUES: Final = 500
#: Added to the time at which a lease runs out, seconds, so that the server agrees that it has.
LEASE_MARGIN: Final = 0.003
#: A renewal that has no answer after a third of the lease, and at least after this long, is sent anew on another
#: connection, seconds: the one that it was sent on may be half-open.
RENEWAL_PATIENCE: Final = 1.0
#: A queue that could not be looked at when something was due is looked at again after this long, seconds.
LOOK_AGAIN: Final = 1.0


class Leases:
    """Renew, reclaim and look ahead for one worker.

    Args:
        host: The app.
        queues: The queues that the worker serves, by name.
        flights: Kicked when there is something to reserve.
        lost: Called with a queue whose lease ran out.
    """

    def __init__(self, host: Host, queues: dict[str, Served], flights: Flights, lost: Callable[[Served], None]) -> None:
        self.reclaimed_total = 0
        self.last_recovery: tuple[int, int] | None = None
        self._host = host
        self._queues = queues
        self._flights = flights
        self._lost = lost
        self._lease = host.settings.lease
        self._renewal: Duty | None = None
        self._survey: Duty | None = None
        self._alarm: Alarm | None = None

    def start(self) -> None:
        """Begin; two duties and one alarm of the clock."""
        self._start_duties()
        self._alarm = self._host.clock.alarm("due jobs and lost leases", self._due, owner="worker")

    def _start_duties(self) -> None:
        clock = self._host.clock
        self._renewal = clock.every("renew leases", self._lease / 3, self.renew, owner="worker", urgent=True)
        self._survey = clock.every("survey queues", self._lease * SURVEY_SHARE, self.survey, owner="worker")

    async def retime(self, lease: float) -> None:
        """Take another length of the lease: what is held is renewed with it at once, and then in its own time."""
        self._lease = lease
        if self._renewal is None or self._survey is None:
            return
        self._renewal.close()
        self._survey.close()
        self._start_duties()
        for served in self._queues.values():
            served.lease_at = 0.0
        await self.renew()

    def close(self) -> None:
        """Stop renewing and looking."""
        for runner in (self._renewal, self._survey, self._alarm):
            if runner is not None:
                runner.close()
        self._renewal = self._survey = self._alarm = None

    def ages(self) -> dict[str, float]:
        """Return for how many seconds each lease has not been extended, by queue; those of queues with jobs in hand."""
        now = asyncio.get_running_loop().time()
        return {name: max(0.0, now - served.lease_at) for name, served in self._queues.items() if served.attempts}

    async def renew(self) -> None:
        """Renew the leases that no other call has extended for a quarter of their length; one round trip."""
        now = asyncio.get_running_loop().time()
        late = [
            served for served in self._queues.values() if served.attempts and now - served.lease_at > self._lease / 4
        ]
        if not late:
            return
        store = self._host.store
        payloads = [store.pack_renew(served.calls, served.worker, round(self._lease * 1000)) for served in late]
        losses = [served.lost for served in late]
        try:
            answers = await store.run(_Prompt(self._host.control, max(RENEWAL_PATIENCE, self._lease / 3)), payloads)
        except (ConnectionLost, CommandRefused, PoolClosed) as error:
            logger.warning("leases could not be renewed; it is tried again", extra={"reason": str(error)[:300]})
            return
        for served, answer, lost in zip(late, answers, losses, strict=True):
            if isinstance(answer, Exception):
                logger.warning("lease could not be renewed", extra={"queue": served.name, "reason": str(answer)[:300]})
            elif served.lost != lost:
                logger.debug("answer about a lease lost before", extra={"queue": served.name})
            elif answer[0] == replies.LEASE_LOST:
                self._lost(served)
            else:
                served.lease_at = now

    def looked(self, asked: list[Served]) -> None:
        """Set the alarm to what the queues just asked say is next."""
        if asked:
            self._set_alarm()

    async def survey(self) -> None:
        """Look at all queues in one call, for what a worker that died may have been the only one to know."""
        if all(served.hot and not served.paused for served in self._queues.values()):
            # Why: whoever found a queue hot and then failed may not have got so far as to say so.
            self._flights.kick()
            return
        names = list(self._queues)
        kicked = False
        try:
            for at in range(0, len(names), SURVEY_QUEUES):
                part = names[at : at + SURVEY_QUEUES]
                _, event_ms, hot = await self._host.store.survey(self._host.control, part)
                for index in hot:
                    await self._look(self._queues[part[index]])
                    kicked = True
                if event_ms and part:
                    first = self._queues[part[0]]
                    event = self._flights.loop_time(event_ms)
                    first.next_due = min(first.next_due or event, event)
        except (ConnectionLost, CommandRefused, PoolClosed) as error:
            logger.warning("queues could not be surveyed; it is tried again", extra={"reason": str(error)[:300]})
        self._set_alarm()
        if kicked:
            self._flights.kick()

    async def reclaim(self, served: Served) -> None:
        """Take back the jobs of workers of one queue whose lease ran out."""
        pages = await self._host.store.reclaim(self._host.control, served.name, self._host.settings.max_stalled)
        moved = sum(page.back + page.died for page in pages)
        if moved:
            self.reclaimed_total += moved
            logger.warning(
                "lost worker's jobs taken back",
                extra={
                    "queue": served.name,
                    "workers": ",".join(sorted({page.worker for page in pages if page.worker})),
                    "back": sum(page.back for page in pages),
                    "never_started": sum(page.unstarted for page in pages),
                    "dead": sum(page.died for page in pages),
                },
            )
            served.heat()
        last = pages[-1]
        served.next_lease = self._flights.loop_time(last.next_lease_ms) if last.next_lease_ms else 0.0

    async def _due(self) -> None:
        now = asyncio.get_running_loop().time()
        failed: Exception | None = None
        for served in list(self._queues.values()):
            if served.look_after <= now and (
                (served.next_due and served.next_due <= now)
                or (served.next_lease and served.next_lease + LEASE_MARGIN <= now)
            ):
                try:
                    await self._look(served)
                except (ConnectionLost, CommandRefused, PoolClosed) as error:
                    failed = error
                    # Why: an alarm in the past would strike at once, again and again, and keep the others from theirs.
                    served.look_after = asyncio.get_running_loop().time() + LOOK_AGAIN
        if failed is not None:
            logger.warning("due jobs could not be looked at; it is tried again", extra={"reason": str(failed)[:300]})
        self._set_alarm()
        self._flights.kick()

    async def _look(self, served: Served) -> None:
        """Reclaim what is lost; what is due is promoted by the reserve that follows, or here for others."""
        # Why: whether the queue is still paused, the reserve that follows says.
        served.paused = False
        now = asyncio.get_running_loop().time()
        if served.next_lease and served.next_lease + LEASE_MARGIN <= now:
            await self.reclaim(served)
        if served.next_due and served.next_due <= now:
            served.next_due = 0.0
        # Why: a worker that has left jobs to others wakes whoever waits longest, which is another if there is one.
        if now > served.giving_way and self._flights.can_take(served):
            served.heat()
            return
        promoted = await self._host.store.promote(self._host.control, served.name)
        served.next_due = self._flights.loop_time(promoted.next_due_ms) if promoted.next_due_ms else 0.0
        if promoted.next_lease_ms and promoted.next_lease_ms < promoted.now_ms:
            await self.reclaim(served)

    def _set_alarm(self) -> None:
        first = 0.0
        for served in self._queues.values():
            for when in (served.next_due, served.next_lease and served.next_lease + LEASE_MARGIN):
                if when and (not first or max(when, served.look_after) < first):
                    first = max(when, served.look_after)
        if self._alarm is not None:
            self._alarm.set(first or None)


class _Prompt:
    """A link whose calls end in time: one that does not answer is dropped, and the next call opens another."""

    def __init__(self, link: Carrier, timeout: float) -> None:
        self._link = link
        self._timeout = timeout

    async def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        return await self._link.roundtrip(payload, count, timeout=self._timeout)
