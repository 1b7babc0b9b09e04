"""Round trips of a worker: one at a time on the jobs lane, each settling what has ended and reserving what comes next.

While one is under way, what ends meanwhile gathers for the next, so that a busy worker batches by itself; a small delay
does the same for a worker whose buffer is full. Nothing here runs by the clock while the worker is idle.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import ConnectionLost
from headrace.record import FRESH, read_state
from headrace.store import replies
from headrace.worker.attempt import Attempt
from headrace.worker.plan import Rate, plan_ask, plan_prefetch, share
from headrace.worker.reconcile import reconcile
from headrace.worker.refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.pool.carrier import Carrier
    from headrace.worker.host import Host
    from headrace.worker.served import Served
    from headrace.worker.settling import Settling
    from headrace.worker.slots import Slots

logger = logging.getLogger(__name__)

#: Ends of jobs may wait this long for company while the buffer still has work, seconds.
GATHER: Final = 0.002
#: So many ends travel at once without waiting for more.
GATHER_JOBS: Final = 64
#: A stopping worker whose last round trip did not come back makes another after this long, seconds.
FLUSH_AGAIN: Final = 0.02
#: A round trip on the jobs lane that takes longer is given up, seconds.
FLIGHT_TIMEOUT: Final = 10.0
#: Records asked for, and outcomes sent, in one round trip take about this much at most; the rest waits for the next.
FLIGHT_BYTES: Final = 16_777_216


class Flights:
    """Send the round trips of one worker.

    Args:
        host: The app.
        link: Connection of the jobs lane.
        queues: The queues that the worker serves, by name.
        slots: Where reserved jobs go.
        settling: What has ended.
        lease_lost: Called with a queue when the server says that the lease on it ran out.
        looked: Called after each round trip with the queues that were asked for jobs, if any.
    """

    def __init__(
        self,
        host: Host,
        link: Carrier,
        queues: dict[str, Served],
        slots: Slots,
        settling: Settling,
        *,
        lease_lost: Callable[[Served], None],
        looked: Callable[[list[Served]], None],
    ) -> None:
        self.reserving = True
        self.total = self.jobs_total = 0
        self._host = host
        self._link = link
        self._queues = queues
        self._slots = slots
        self._settling = settling
        self.retune()
        self._lease_lost = lease_lost
        self._looked = looked
        self._rate = Rate()
        self._wanted = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._under_way = False
        self._landed: asyncio.Future[None] | None = None
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000
        self._turn = 0
        self._last_end, self._last_count = 0.0, 0
        #: Size of a record: a moving average over the latest reserves.
        self._record_bytes = 1.0
        self._refusals = Refusals(host.clock, self.kick)

    def retune(self) -> None:
        """Take the lease, and what is kept of ended jobs, from the settings of now."""
        settings = self._host.settings
        self._lease_ms = round(settings.lease * 1000)
        self._limits = (settings.keep_finished_count, settings.keep_dead_count, round(settings.keep_dead * 1000))

    def server_ms(self) -> int:
        """Return the server's time, as of the last reply and this process's clock."""
        return int(self._offset_ms + time.monotonic() * 1000)

    def loop_time(self, server_ms: int) -> float:
        """Return the loop's time of a moment of the server's clock."""
        loop = asyncio.get_running_loop()
        return loop.time() + (server_ms - self._offset_ms) / 1000 - time.monotonic()

    def forgive(self) -> None:
        """Try the queues again at once whose calls were refused, or whose node was away."""
        self._refusals.forgive()

    def kick(self) -> None:
        """Send the next round trip as soon as possible."""
        self._wanted.set()

    def note(self) -> None:
        """Look whether something should travel now, or soon."""
        if self._under_way or self._wanted.is_set():
            return
        if not self._slots.buffer or self._pending() >= GATHER_JOBS:
            self._wanted.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._gathered)

    async def announce(self, attempt: Attempt) -> None:
        """Record that a held job is being run, and wait until that is recorded."""
        attempt.served.starting.append(attempt)
        self.kick()
        # Bound: each landing of a round trip; the one that carries the entry turns the hold into a started one.
        while b"-" in attempt.hold and attempt.id_bytes in attempt.served.attempts:
            if self._landed is None:
                self._landed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._landed)

    async def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        """Send packed commands on the jobs lane, as a client of the store; raises ConnectionLost."""
        return await self._link.roundtrip(payload, count, timeout=FLIGHT_TIMEOUT)

    async def run(self) -> None:
        """Send round trips until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._cancel_timer()
            while self._flies_again():
                if not await self._fly():
                    break

    async def flush(self, timeout: float) -> bool:
        """Settle everything that has ended, with the run loop stopped; False when that was not possible in time."""
        deadline = time.monotonic() + timeout
        self.reserving = False
        while any(served.pending or served.starting or served.reconcile for served in self._queues.values()):
            if not await self._fly():
                await asyncio.sleep(FLUSH_AGAIN)
            if time.monotonic() > deadline:
                return False
        return True

    def close(self) -> None:
        """Let go of the timers."""
        self._cancel_timer()
        self._refusals.close()

    def _gathered(self) -> None:
        self._timer = None
        self._wanted.set()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pending(self) -> int:
        queues = self._queues.values()
        return sum(served.pending for served in queues if (served.plain or served.rich) and not served.refused)

    def _flies_again(self) -> bool:
        pending = self._pending()
        if pending >= GATHER_JOBS or (pending and not self._slots.buffer):
            return True
        if any((served.starting or served.reconcile) and not served.refused for served in self._queues.values()):
            return True
        if self.hungry():
            return True
        if pending and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._gathered)
        return False

    def hungry(self) -> bool:
        """Tell whether a reserve is wanted from a queue that may have jobs."""
        return bool(self._asks())

    def can_take(self, served: Served) -> bool:
        """Tell whether a job of a queue could be started now."""
        if not self.reserving or self._slots.free <= len(self._slots.buffer):
            return False
        return served.limit is None or len(served.attempts) < served.limit

    def _asks(self) -> list[tuple[Served, int, int]]:
        """Return what to reserve from which queue; nothing while the buffer holds most of what it should."""
        if not self.reserving:
            return []
        hot = [
            served
            for served in self._queues.values()
            if served.hot
            and not served.paused
            and not served.refused
            and (served.limit is None or len(served.attempts) < served.limit)
        ]
        if not hot:
            return []
        slots = self._slots
        target = plan_prefetch(self._rate.value, slots.concurrency)
        most = max(1, int(FLIGHT_BYTES / self._record_bytes))
        # Why: jobs in quarantine leave their slots to others, but no more of them than there are slots.
        buffered = len(slots.buffer) + max(0, len(slots.quarantine) - slots.concurrency)
        ask = plan_ask(slots.free, buffered, target, most)
        if not ask.start and ask.prefetch * 2 < target:
            return []
        if not ask.total:
            return []
        self._turn += 1
        first = self._turn % len(hot)
        asks: list[tuple[Served, int, int]] = []
        for turn, served in enumerate(hot[first:] + hot[:first]):
            part = share(ask, len(hot), turn)
            start, prefetch = part.start, part.prefetch
            if served.limit is not None:
                start, prefetch = min(start, served.limit - len(served.attempts)), 0
            if start + prefetch:
                asks.append((served, start, prefetch))
        return asks

    async def _fly(self) -> bool:
        """Send one round trip; False when it did not come back."""
        payloads: list[bytes] = []
        readers: list[tuple[Served, str, Any]] = []
        self._under_way = True
        began = time.monotonic()
        try:
            for served in self._queues.values():
                if served.refused:
                    continue
                if served.reconcile and not await reconcile(served, self._host.store, self, self._refusals):
                    continue
                if served.plain or served.rich or served.starting:
                    for payload, detail in served.pack_settles(self._lease_ms, self._limits, FLIGHT_BYTES):
                        payloads.append(payload)
                        readers.append((served, "settle", detail))
            for served, start, prefetch in self._asks():
                payloads.append(
                    self._host.store.pack_reserve(served.calls, served.worker, self._lease_ms, start, prefetch)
                )
                readers.append((served, "reserve", (start + prefetch, served.worker)))
                served.turned = False
                served.early.clear()
            if not payloads:
                return False
            losses = [served.lost for served, _, _ in readers]
            answers = await self._host.store.run(self, payloads)
        except asyncio.CancelledError:
            # Why: the worker stops; what this round trip did is not known to it either.
            self._restore(readers)
            raise
        except ConnectionLost:
            self._restore(readers)
            await asyncio.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - jitter, no secret
            self._wanted.set()
            return False
        finally:
            self._under_way = False
            self._land()
        self.total += 1
        return self._read(readers, answers, began, losses)

    def _restore(self, readers: list[tuple[Served, str, Any]]) -> None:
        """Put back what was in a round trip that did not come back: what of it took effect is not known."""
        for served, what, detail in reversed(readers):
            if what == "reserve":
                served.reconcile = True
            else:
                served.restore(detail)

    def _read(
        self, readers: list[tuple[Served, str, Any]], answers: list[Any], began: float, losses: list[int]
    ) -> bool:
        now = time.monotonic()
        done = 0
        fresh: list[Attempt] = []
        asked: list[Served] = []
        failed: set[Served] = set()
        loop_now = asyncio.get_running_loop().time()
        for at, ((served, what, detail), answer) in enumerate(zip(readers, answers, strict=True)):
            if isinstance(answer, Exception):
                self._refused(served, what, detail, answer)
                failed.add(served)
                continue
            self._offset_ms = answer[1] - (began + now) * 500
            if answer[0] == replies.LEASE_LOST:
                if what == "settle":
                    self._late(served, detail)
                if served.lost == losses[at] and (what == "reserve" or served.attempts or not served.uncertain):
                    self._lease_lost(served)
                continue
            served.lease_at = loop_now
            if what == "settle":
                done += self._settled(served, detail, answer[2])
            else:
                asked_for, name = detail
                reply = replies.parse_reserved(answer)
                if reply.ids:
                    # Why: they are held under the name that was sent, even if it was given up before the reply came.
                    served.worker = name
                fresh += self._admit(served, self._reserved(served, reply, asked_for))
                asked.append(served)
        # Why: only now, since the calls of one round trip on one queue are sent again together.
        for served in {served for served, what, _ in readers if what == "settle"} - failed:
            served.uncertain = False
        self._measure(done, now)
        if fresh:
            self.jobs_total += len(fresh)
            self._slots.put(fresh)
        self._looked(asked)
        return not any(isinstance(answer, Exception) for answer in answers)

    def _late(self, served: Served, detail: Any) -> None:
        """Count what was refused because the lease had run out; after a lost reply it may have been recorded before."""
        _, some, entries, _ = detail
        jobs = len(some) // 2 + sum(1 for entry in entries if entry[0] not in {"start", "follow"})
        if jobs and not served.uncertain:
            self._settling.refused_total += jobs
            logger.warning("late results refused", extra={"queue": served.name, "jobs": jobs})

    def _settled(self, served: Served, detail: Any, refused: list[bytes]) -> int:
        _, some, entries, started = detail
        for attempt in started:
            attempt.hold = attempt.hold.replace(b"-", b"+", 2)
        if refused and not served.uncertain:
            self._settling.refused_total += len(refused)
            logger.warning("late results refused", extra={"queue": served.name, "jobs": len(refused)})
        return len(some) // 2 + len(entries)

    def _reserved(self, served: Served, reply: replies.Reserved, asked: int) -> list[Attempt]:
        if not served.turned:
            served.paused = reply.status == replies.PAUSED
        served.hot = served.turned or reply.remain or len(reply.ids) >= asked
        served.next_due = self.loop_time(reply.next_due_ms) if reply.next_due_ms else 0.0
        served.next_lease = self.loop_time(reply.next_lease_ms) if reply.next_lease_ms else 0.0
        host, known, attempts = self._host, reply.known, served.attempts
        if reply.records:
            size = sum(map(len, filter(None, reply.records))) / len(reply.records)
            self._record_bytes = max(1.0, 0.5 * self._record_bytes + 0.5 * size)
        fresh: list[Attempt] = []
        if not known:
            for job_id, record, hold in zip(reply.ids, reply.records, reply.holds, strict=True):
                attempts[job_id] = attempt = Attempt(host, served, job_id, hold, record or b"", FRESH, b"")
                fresh.append(attempt)
            return fresh
        for index, (job_id, record, hold) in enumerate(zip(reply.ids, reply.records, reply.holds, strict=True)):
            state, errors = known.get(index, (None, b""))
            attempts[job_id] = attempt = Attempt(host, served, job_id, hold, record or b"", read_state(state), errors)
            fresh.append(attempt)
        return fresh

    def _admit(self, served: Served, fresh: list[Attempt]) -> list[Attempt]:
        """Return the jobs that may start: cancelled ones do not, and none of a paused queue or a stopping worker."""
        if not served.early and not served.paused and self.reserving:
            return fresh
        kept: list[Attempt] = []
        for attempt in fresh:
            if attempt.id_bytes in served.early:
                self._settling.drop_cancelled(attempt)
            elif served.paused or not self.reserving:
                self._settling.hand_back(attempt)
            else:
                kept.append(attempt)
        served.early.clear()
        return kept

    def _refused(self, served: Served, what: str, detail: Any, answer: Exception) -> None:
        # Why: such as out of memory or a read-only replica after a failover; it is tried again, not lost.
        self._restore([(served, what, detail)])
        self._refusals.take(served, what, answer)

    def _measure(self, done: int, now: float) -> None:
        if done and self._last_count:
            self._rate.add(done, min(0.1, now - self._last_end))
        self._last_count = done
        self._last_end = now

    def _land(self) -> None:
        landed, self._landed = self._landed, None
        if landed is not None and not landed.done():
            landed.set_result(None)
