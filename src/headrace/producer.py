"""Send batches of jobs: one round trip for thousands, sent again after a break without being accepted twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import ConnectionLost
from headrace.job import Job, JobStatus
from headrace.keys import queues_key
from headrace.resp import pack_command
from headrace.store.replies import raise_lost, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.job import Desk
    from headrace.pool.carrier import Carrier, SyncCarrier
    from headrace.pool.confirm import Confirm, SyncTrip, Trip
    from headrace.store.store import Store
    from headrace.task import Batch

#: Bytes of one round trip; a batch above it is sent as several.
ROUNDTRIP_BYTES: Final = 8_388_608
ROUNDTRIP_JOBS: Final = 10_000
#: Queue names known to be in the index; more are noted again.
MAX_KNOWN_QUEUES: Final = 10_000


class Sender:
    """Send batches for one app.

    Args:
        store: Packs the calls.
        desk: What the handles of the jobs ask of the app.
        timeout: Longest time in seconds to get a batch accepted, breaks and resends included.
        lease_ran_out: Called with a queue in which some worker's lease has run out.
        where: How the server is called in errors.
        confirm: Has replicas confirm what was accepted, or None to leave that to the server.
    """

    def __init__(
        self,
        store: Store,
        desk: Desk,
        *,
        timeout: float,
        lease_ran_out: Callable[[str], None],
        where: str,
        confirm: Confirm | None = None,
    ) -> None:
        self._store = store
        self._desk = desk
        self.timeout = timeout
        self._lease_ran_out = lease_ran_out
        self._where = where
        self._confirm = confirm
        self._known: set[str] = set()

    async def send(self, link: Carrier, batch: Batch) -> list[Job[Any]]:
        """Send a batch; raises ConnectionLost or CommandRefused."""
        holders: list[str] = []
        trip: Trip = link if self._confirm is None else self._confirm.over(link)
        for part in _parts(batch):
            timed = _Timed(trip, self.timeout)
            resent = False
            while True:
                payloads = self._pack(batch, part, resent=resent)
                # Why: in a cluster the names are on some other node, and a job does not need that one to be there.
                notes = [self._pack_note(batch)] if batch.queue not in self._known else []
                try:
                    replies = await self._store.run(timed, [*notes, *payloads])
                    raise_lost(replies[len(notes) :])
                except ConnectionLost:
                    # Why: what took effect is unknown; ids already accepted are skipped by the script. And a server
                    # that took over from another may not know of the queue.
                    resent = True
                    self._known.clear()
                    if timed.is_over:
                        raise
                else:
                    if notes and not isinstance(replies[0], Exception):
                        self._note(batch.queue)
                    holders += self._read(batch, replies[len(notes) :])
                    break
        return self._jobs(batch, holders)

    def send_sync(self, link: SyncCarrier, batch: Batch) -> list[Job[Any]]:
        """Send a batch from synchronous code; raises ConnectionLost or CommandRefused."""
        holders: list[str] = []
        trip: SyncTrip = link if self._confirm is None else self._confirm.over_sync(link)
        for part in _parts(batch):
            timed = _TimedSync(trip, self.timeout)
            resent = False
            while True:
                payloads = self._pack(batch, part, resent=resent)
                try:
                    replies = self._store.run_sync(timed, [self._pack_note(batch), *payloads])[1:]
                    raise_lost(replies)
                except ConnectionLost:
                    resent = True
                    if timed.is_over:
                        raise
                else:
                    holders += self._read(batch, replies)
                    break
        return self._jobs(batch, holders)

    def _pack_note(self, batch: Batch) -> bytes:
        return pack_command("SADD", queues_key(self._store.prefix), batch.queue)

    def _pack(self, batch: Batch, part: list[str | bytes], *, resent: bool) -> list[bytes]:
        return self._store.pack_enqueue(
            batch.queue, batch.priority, batch.delay_ms, part, unique_key=batch.unique_key, resent=resent
        )

    def _read(self, batch: Batch, replies: list[Any]) -> list[str]:
        holders: list[str] = []
        for reply in replies:
            refuse(reply, "enqueue", self._where)
            if reply[1]:
                holders.append(reply[1].decode())
            if reply[2]:
                self._lease_ran_out(batch.queue)
        return holders

    def _jobs(self, batch: Batch, holders: list[str]) -> list[Job[Any]]:
        status = JobStatus.DELAYED if batch.delay_ms else JobStatus.WAITING
        name = batch.task.name
        return [Job[Any](self._desk, job_id, batch.queue, name, status) for job_id in holders or batch.ids]

    def _note(self, queue: str) -> None:
        if len(self._known) >= MAX_KNOWN_QUEUES:
            self._known.clear()
        self._known.add(queue)


class _Timed:
    """A link whose round trips have to end by one time."""

    __slots__ = ("_deadline", "_link")

    def __init__(self, link: Trip, timeout: float) -> None:
        self._link = link
        self._deadline = time.monotonic() + timeout

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    async def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        left = max(0.001, self._deadline - time.monotonic())
        return await self._link.roundtrip(payload, count, timeout=left)


class _TimedSync:
    """A link for synchronous code whose round trips have to end by one time."""

    __slots__ = ("_deadline", "_link")

    def __init__(self, link: SyncTrip, timeout: float) -> None:
        self._link = link
        self._deadline = time.monotonic() + timeout

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        left = max(0.001, self._deadline - time.monotonic())
        return self._link.roundtrip(payload, count, timeout=left)


def _parts(batch: Batch) -> Iterator[list[str | bytes]]:
    part: list[str | bytes] = []
    size = 0
    for job_id, body in zip(batch.ids, batch.bodies, strict=True):
        if part and (size + len(body) > ROUNDTRIP_BYTES or len(part) >= 2 * ROUNDTRIP_JOBS):
            yield part
            part, size = [], 0
        part.append(job_id)
        part.append(body)
        size += len(body)
    if part:
        yield part
