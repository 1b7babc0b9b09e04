"""The parts of a running worker: wired here, started, told about each other, and let go of in order."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import HeadraceError
from headrace.pool.link import Lane
from headrace.worker.flights import Flights
from headrace.worker.governed import Governed
from headrace.worker.lease import Leases
from headrace.worker.processes import Processes
from headrace.worker.registration import Registration
from headrace.worker.retune import Retuning
from headrace.worker.runners import Runner
from headrace.worker.served import Served
from headrace.worker.settling import Settling
from headrace.worker.slots import Slots
from headrace.worker.threads import Threads
from headrace.worker.waking import Wakings

if TYPE_CHECKING:
    from headrace.clock import Alarm
    from headrace.worker.host import Host
    from headrace.worker.worker import Worker

logger = logging.getLogger(__name__)

#: Time for the last round trip of a stopping worker, seconds.
LAST_FLIGHT: Final = 5.0
#: Time for all that a stopping worker still has to tell the server, seconds.
LAST_WORDS: Final = 2 * LAST_FLIGHT
#: Time that cancelled jobs get to end when a worker stops, seconds.
LAST_MARGIN: Final = 2.0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What a worker did and does. Counts are since its start; `running` and `buffered` are now."""

    completed: int
    failed: int
    retried: int
    refused: int
    reclaimed: int
    running: int
    buffered: int
    round_trips: int
    reserved: int
    loop_stalls: int


class Running:
    """The parts of a running worker."""

    def __init__(self, worker: Worker, host: Host, resources: dict[str, Any]) -> None:
        settings = host.settings
        self._worker = worker
        self._host = host
        census = host.census_book
        self.threads = Threads(census, maximum=settings.threads, name=f"headrace-{worker.id}")
        self.processes = Processes(census, host, maximum=settings.processes)
        limits = dict(settings.queue_limits)
        self.queues = {
            name: Served(name, host.store, limit or limits.get(name), worker.id)
            for name, limit in worker.queues.items()
        }
        self.settling = Settling(host.events, limit_bytes=settings.record_limit_bytes)
        self.runners: dict[bytes, Runner] = {}
        for name in host.tasks.names():
            task = host.tasks.get(name)
            if task is not None:
                self.runners[name.encode()] = Runner(host, task, resources, self.threads, self.processes)
        self._alarm: Alarm = host.clock.alarm("job timeouts", self._check_deadlines, owner="worker")
        self._alarm_at = 0.0
        self.slots = Slots(
            census,
            concurrency=worker.concurrency,
            runners=self.runners,
            settling=self.settling,
            deadline_set=self._deadline_set,
            slow_step=settings.loop_lag_warn,
            ended=self._part_ended,
            max_stalled=settings.max_stalled,
        )
        self._jobs_link = host.links.link(Lane.JOBS, f"worker-{worker.id}", owner="worker", on_reopen=self._reopened)
        self.flights = Flights(
            host, self._jobs_link, self.queues, self.slots, self.settling,
            lease_lost=self._lease_lost, looked=self._looked,
        )  # fmt: skip
        self.settling.sender = self.flights
        self.leases = Leases(host, self.queues, self.flights, self._lease_lost)
        self.waking = Wakings(host, worker.id, self.queues, self.flights)
        self._tasks: list[asyncio.Task[None]] = []
        self._hurried = asyncio.Event()
        #: Queues that were asked in vain since the last end of a job.
        self._quiet: set[Served] = set()
        self.registration = Registration(host, worker.id, list(self.queues), worker.concurrency, self.flights.server_ms)
        self.retuning = Retuning(worker, self)
        # Why here: what changes from now on was not read above.
        host.follow(self.retuning)
        self._governed = Governed(worker, self)

    async def start(self) -> None:
        """Listen, register, and begin to reserve."""
        census = self._host.census_book
        await self._host.listen([served.channel for served in self.queues.values()], self._told)
        await self.registration.start()
        self.leases.start()
        self._tasks = [
            census.create_task(self.flights.run(), name="flights", owner="worker"),
            *(census.create_task(waking.run(), name="waking", owner="worker") for waking in self.waking.parts),
        ]
        for task in self._tasks:
            task.add_done_callback(self._part_ended)
        self.flights.kick()
        self._governed.start()
        logger.info(
            "worker started",
            extra={"worker": self._worker.id, "queues": ",".join(self.queues), "concurrency": self._worker.concurrency},
        )

    def hurry(self) -> None:
        """End the grace now."""
        self._hurried.set()

    def take(self, *, on: bool) -> None:
        """Take jobs again, or no more and hand back what has not started."""
        self.flights.reserving = on
        if on:
            for served in self.queues.values():
                served.heat()
        else:
            self._give_back_buffer()
        self.flights.kick()
        self.waking.changed()

    async def stop(self, grace: float) -> None:
        """Hand back, wait, hand back the rest, settle, and let go of everything."""
        self._host.unfollow(self.retuning)
        self._governed.close()
        self.flights.reserving = False
        self._give_back_buffer()
        self.flights.kick()
        if self.slots.running and grace:
            await self._wait_for_slots(grace)
        self._tell_running(logging.WARNING, "jobs did not end within the grace; they are cancelled and handed back")
        for attempt in list(self.slots.running):
            self.slots.stop(attempt, "shutdown")
        if self.slots.running:
            await self._wait_for_slots(LAST_MARGIN, hurried=False)
        self._tell_running(logging.ERROR, "jobs go on although they are cancelled; they are handed back all the same")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.slots.close()
        self._give_back_buffer()
        self._give_back_rest()
        try:
            # Why: a server that is gone must not keep the worker, whatever each of these calls would wait for it.
            async with asyncio.timeout(LAST_WORDS):
                if not await self.flights.flush(LAST_FLIGHT):
                    logger.error("worker stopped without settling all jobs; its lease ends and others run them again")
                await self._pass_on()
                await self.waking.forget()
                await self.registration.unregister()
        except (HeadraceError, TimeoutError) as error:
            logger.warning("worker could not say goodbye", extra={"reason": repr(error)[:300]})
        self.flights.close()
        self._host.unlisten(self._told)
        self.leases.close()
        self._alarm.close()
        self.registration.close()
        await self.processes.close()
        census = self._host.census_book
        left = await census.in_thread(self.threads.close, 1.0, name="end the threads of a worker", owner="worker")
        if left:
            logger.error("threads still run tasks that do not end", extra={"threads": ",".join(left)})
        await self._host.links.release(self._jobs_link)
        await self.waking.release()
        logger.info("worker stopped", extra={"worker": self._worker.id, **_shown(self.stats())})

    def stats(self) -> WorkerStats:
        """Return what the worker did and does."""
        settling, slots = self.settling, self.slots
        return WorkerStats(
            settling.completed_total, settling.failed_total, settling.retried_total, settling.refused_total,
            self.leases.reclaimed_total, len(slots.running), len(slots.buffer), self.flights.total,
            self.flights.jobs_total, slots.stalls_seen,
        )  # fmt: skip

    @property
    def jobs_trouble(self) -> str:
        """Why the jobs lane has no connection; empty when it has one, or waits for its first."""
        return "" if self._jobs_link.is_open else self._jobs_link.last_failure

    # What the parts tell each other

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            for served in self.queues.values():
                # Why: what the part was about to do may never have been told to the server, or to the other parts.
                served.reconcile = True
            self._worker.fail(error)

    def _looked(self, asked: list[Served]) -> None:
        self.retuning.looked()
        self._governed.looked()
        self.leases.looked(asked)
        self.waking.changed()
        signals = self._worker.signals
        if asked:
            signals.reserved.set()
        if self._worker.burst:
            self._end_burst(asked)

    def _end_burst(self, asked: list[Served]) -> None:
        """Stop once every queue was asked after the last end of a job: that may have put jobs back, or added some."""
        busy = self.slots.running or self.slots.buffer
        if busy or any(served.attempts or served.pending for served in self.queues.values()):
            self._quiet.clear()
            return
        # Why: with more queues than free slots, it takes several round trips to ask all of them.
        self._quiet.update(asked)
        open_queues = [served for served in self.queues.values() if not served.paused]
        if any(served.hot for served in open_queues):
            return
        unasked = [served for served in open_queues if served not in self._quiet]
        if not unasked:
            self._worker.stop()
        for served in unasked:
            served.hot = True
        self.flights.kick()

    def _reopened(self) -> None:
        for served in self.queues.values():
            served.hot = True
            # Why: after a failover, or a restart on a file that lacks the last second, the server may believe that this
            # worker still holds what it was told has ended; nobody else takes that back as long as the worker lives.
            served.reconcile = True
        self.flights.forgive()
        self.flights.kick()

    def _deadline_set(self, when: float) -> None:
        if not self._alarm_at or when < self._alarm_at:
            self._alarm_at = when
            self._alarm.set(asyncio.get_running_loop().time() + when - time.monotonic())

    def _check_deadlines(self) -> None:
        self._alarm_at = 0.0
        following = self.slots.check_deadlines(time.monotonic())
        if following:
            self._deadline_set(following)

    def _lease_lost(self, served: Served) -> None:
        """Let go of everything held under a lease that ran out; others run it, or this worker under a new name."""
        lost = list(served.attempts.values())
        logger.warning(
            "lease lost",
            extra={"worker": served.worker, "queue": served.name, "jobs": len(lost), "unsettled": served.pending},
        )
        self.settling.refused_total += served.pending
        served.lose_lease()
        _ = self.slots.take_back(served)
        for attempt in lost:
            self.slots.stop(attempt, "lease lost")
        self._worker.signals.lease_lost.set()
        served.hot = True
        _ = self._host.census_book.create_task(
            self._reclaim_own(served), name="reclaim after lost lease", owner="worker", expected=(HeadraceError,)
        )

    async def _reclaim_own(self, served: Served) -> None:
        # Why: the queue is hot already, and is asked even if nothing can be taken back now.
        self.flights.kick()
        await self.leases.reclaim(served)
        self.flights.kick()

    def _told(self, channel: str, message: bytes) -> None:
        """Act on a message of a queue's control channel."""
        served = next((served for served in self.queues.values() if served.channel == channel), None)
        if served is None:
            return
        word, _, rest = message.partition(b" ")
        if word == b"cancel":
            self._cancel(served, rest)
        elif word == b"reopened":
            served.paused = False
            served.hot = served.turned = True
            self.flights.kick()
            if served.attempts:
                _ = self._host.census_book.create_task(
                    self._catch_up(served), name="look for missed cancels", owner="worker", expected=(HeadraceError,)
                )
        elif word == b"pause":
            served.paused = served.turned = True
            for attempt in self.slots.take_back(served):
                self.settling.hand_back(attempt)
            self._give_back_parked(served)
            self.flights.kick()
        elif word == b"resume":
            served.paused = False
            served.hot = served.turned = True
            self.flights.kick()

    def _cancel(self, served: Served, job_id: bytes) -> None:
        attempt = served.attempts.get(job_id)
        if attempt is None:
            served.note_cancel(job_id)
        elif attempt.slot is not None:
            self.slots.stop(attempt, "cancelled")
        elif self.slots.drop(attempt) or attempt in served.parked:
            if attempt in served.parked:
                served.parked.remove(attempt)
            self.settling.drop_cancelled(attempt)
            self.flights.kick()
        else:
            # Why: a slot announces it, and looks here before it starts it.
            attempt.stop = "cancelled"

    async def _catch_up(self, served: Served) -> None:
        for job_id in await self._host.store.cancels(self._host.control, served.name):
            self._cancel(served, job_id)

    # Stopping

    async def _wait_for_slots(self, grace: float, *, hurried: bool = True) -> None:
        """Wait until no slot runs a job, at most the grace, and less when the worker is told to hurry."""
        deadline = time.monotonic() + grace
        hurry: asyncio.Task[object] = self._host.census_book.create_task(
            self._hurried.wait() if hurried else asyncio.Event().wait(), name="wait to be hurried", owner="worker"
        )
        try:
            while self.slots.running and (left := deadline - time.monotonic()) > 0 and not hurry.done():
                await asyncio.wait({self.slots.next_end(), hurry}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()

    def _tell_running(self, level: int, message: str) -> None:
        if self.slots.running:
            jobs = ", ".join(self._governed.running_jobs())
            logger.log(level, message, extra={"count": len(self.slots.running), "jobs": jobs})

    def _give_back_buffer(self) -> None:
        for attempt in self.slots.take_back():
            self.settling.hand_back(attempt)
        for served in self.queues.values():
            self._give_back_parked(served)

    def _give_back_parked(self, served: Served) -> None:
        while served.parked:
            self.settling.hand_back(served.parked.popleft())

    def _give_back_rest(self) -> None:
        for served in self.queues.values():
            for attempt in list(served.attempts.values()):
                self.settling.hand_back(attempt)

    async def _pass_on(self) -> None:
        """Wake another worker for jobs whose wake-up this one may have taken."""
        for served in self.queues.values():
            if served.hot:
                await self._host.store.promote(self._host.control, served.name)


def _shown(stats: WorkerStats) -> dict[str, int]:
    return {name: getattr(stats, name) for name in WorkerStats.__slots__}
