"""What the store promises, as plain Python: one queue, and the queue that takes its dead if a call names one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from headrace.keys import HIGHEST_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Entry = tuple[str, bytes, bytes, int, bytes, str]
Plain = tuple[bytes, bytes]
LEVELS: Final = range(HIGHEST_PRIORITY, 0, -1)


@dataclass
class ModelJob:
    """One job and all that lies beside it."""

    level: int
    place: str
    key: str = ""
    state: bytes = b""
    errors: bytes = b""
    progress: bytes = b""
    hold: bytes = b""
    worker: str = ""
    asked: bool = False
    due: int = 0
    ended: int = 0
    inboxes: list[str] = field(default_factory=list)

    @property
    def started(self) -> bool:
        return b"+" in self.hold

    @property
    def noted(self) -> bool:
        """Something lies beside its record, so that it cannot be completed as one of many."""
        return bool(self.state or self.errors or self.progress or self.key)

    def counts(self) -> list[int]:
        return [int(part) for part in (self.state or b"0 0 0").split()[:3]]


class StoreModel:
    """Jobs, the lists they wait in, and the leases of workers; `told` are the messages that inboxes must have got."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, ModelJob] = {}
        self.letter: dict[bytes, ModelJob] = {}
        self.lists: dict[int, list[bytes]] = {level: [] for level in LEVELS}
        self.ghosts: set[bytes] = set()
        self.outcomes: dict[bytes, tuple[bytes, int]] = {}
        #: Worker -> 0, or when its lease ran out.
        self.leases: dict[str, int] = {}
        self.paused = False
        self.fence = 0
        self.totals = dict.fromkeys(("completed", "failed", "retried", "stalled"), 0)
        self.told: list[tuple[str, bytes, str, bytes]] = []
        self.batches: list[tuple[int, list[bytes]]] = []
        self.holds: list[Plain] = []
        #: Grows with each call that ends jobs, as the server's clock does.
        self.moment = 1

    # What is where

    def ids(self, *places: str) -> list[bytes]:
        return [job_id for job_id, job in self.jobs.items() if job.place in places]

    def held_by(self, worker: str) -> list[bytes]:
        return [job_id for job_id in self.ids("held") if self.jobs[job_id].worker == worker]

    def waiting(self) -> list[bytes]:
        return [job_id for level in LEVELS for job_id in self.lists[level] if job_id not in self.ghosts]

    def key_holder(self, key: str) -> bytes | None:
        alive = self.ids("waiting", "delayed", "held")
        return next((job_id for job_id in alive if key and self.jobs[job_id].key == key), None)

    def status(self, job_id: bytes) -> str:
        if self._readable(job_id):
            return "completed"
        job = self.jobs.get(job_id)
        return {"held": "active", "dead": "failed"}.get(job.place, job.place) if job else "missing"

    # Transitions

    def enqueue(self, ids: Sequence[bytes], level: int, *, delayed: bool, key: str) -> bytes:
        """Accept jobs; returns the id that holds the key already, or nothing."""
        holder = self.key_holder(key)
        if holder is not None:
            return holder
        for job_id in ids:
            self.jobs[job_id] = ModelJob(level, "", key)
            self._park(job_id, delayed=delayed)
        return b""

    def promote(self) -> None:
        due = sorted((job_id for job_id in self.ids("delayed") if self.jobs[job_id].due), key=self._due)
        for job_id in due:
            self.jobs[job_id].due = 0
            self._park(job_id, delayed=False)

    def reserve(self, worker: str, start: int, prefetch: int) -> tuple[int, list[tuple[bytes, bool]]]:
        """Return the status, and each reserved job with whether it is started; `note_hold` says under which hold."""
        if self.paused:
            return 1, []
        if self.leases.get(worker):
            return -1, []
        self.promote()
        taken = self.waiting()[: start + prefetch]
        for job_id in taken:
            job = self.jobs[job_id]
            self.lists[job.level].remove(job_id)
            job.place, job.worker = "held", worker
        if taken:
            self.leases[worker] = 0
        return 0, [(job_id, at < start and not self.jobs[job_id].counts()[1]) for at, job_id in enumerate(taken)]

    def settle(
        self, worker: str, plain: Sequence[Plain], entries: Sequence[Entry], *, idle: bool, letter: bool
    ) -> list[bytes] | None:
        """Return the refused ids, or None when the lease had run out."""
        if self.leases.get(worker) != 0:
            return None
        self.moment += 1
        refused = [job_id for job_id, hold in plain if not self.holds_now(job_id, hold)]
        for job_id in {job_id for job_id, _ in plain} - set(refused):
            self._complete(job_id, b"", 0)
        fronts: list[bytes] = []
        accepted = False
        for verb, job_id, hold, number, text, extra in entries:
            if verb == "follow":
                self._follow(job_id, int(extra), accepted=accepted, delayed=number > 0)
                continue
            accepted = self.holds_now(job_id, hold)
            if not accepted:
                refused.append(job_id)
            elif verb == "start":
                self.note_hold(job_id, hold.replace(b"-", b"+", 2))
            else:
                self._end(verb, job_id, number, text, extra, fronts, letter=letter)
        for job_id in reversed(fronts):
            self.lists[self.jobs[job_id].level].insert(0, job_id)
        if idle:
            del self.leases[worker]
        return refused

    def reclaim(self, max_stalled: int) -> tuple[int, int, int]:
        """Take back the jobs of all expired workers; returns how many went back, died, and were never started."""
        back = died = unstarted = 0
        self.moment += 1
        late = sorted((when, name) for name, when in self.leases.items() if when)
        for _, worker in late:
            fronts: list[bytes] = []
            for job_id in self.held_by(worker):
                job = self.jobs[job_id]
                attempts, stalls, deferrals = job.counts()
                stalls = stalls + 1 if job.started else max(1, stalls)
                attempts += job.started
                unstarted += not job.started
                job.state = f"{attempts} {stalls} {deferrals}".encode()
                self.totals["stalled"] += 1
                if job.asked:
                    self._finish(job_id, "cancelled")
                elif job.started and stalls > max_stalled:
                    job.state += b" stalled"
                    self._finish(job_id, "dead")
                    self.totals["failed"] += 1
                    died += 1
                else:
                    fronts.append(job_id)
                    back += 1
                    job.place, job.hold, job.worker = "waiting", b"", ""
            for job_id in sorted(fronts, reverse=True):
                self.lists[self.jobs[job_id].level].insert(0, job_id)
            del self.leases[worker]
        return back, died, unstarted

    def cancel(self, job_id: bytes) -> str:
        job = self.jobs.get(job_id)
        self.moment += 1
        if job is None:
            return "missing"
        if job.place == "held":
            job.asked = True
            return "asked"
        if job.place in ("dead", "cancelled"):
            return self.status(job_id)
        if job.place == "waiting":
            self.ghosts.add(job_id)
        self._finish(job_id, "cancelled")
        return "cancelled"

    def retry(self, ids: Iterable[bytes], *, letter: bool) -> int:
        """Put dead and cancelled jobs back; a job that lies in the dead-letter queue comes back from there."""
        moved = 0
        for job_id in ids:
            if letter and job_id in self.letter:
                self.jobs[job_id] = self.letter.pop(job_id)
            elif job_id not in self.ids("cancelled") and (letter or job_id not in self.ids("dead")):
                continue
            job = self.jobs[job_id]
            job.place, job.state = "waiting", b"0 0 0"
            moved += 1
            if job_id in self.ghosts:
                self.ghosts.remove(job_id)
            else:
                self.lists[job.level].append(job_id)
        return moved

    def clear(self, status: str) -> set[bytes]:
        place = {"failed": "dead"}.get(status, status)
        gone = set(self.ids(place)) if place != "completed" else set(self.outcomes)
        if place == "waiting":
            for level in LEVELS:
                self.ghosts -= set(self.lists[level])
                self.lists[level].clear()
        for job_id in gone:
            if place == "completed":
                del self.outcomes[job_id]
            else:
                self._tell(job_id, "missing", b"")
                del self.jobs[job_id]
        return gone

    def watch(self, job_id: bytes, inbox: str, *, enter: bool) -> tuple[str, bytes]:
        if self._readable(job_id):
            return "completed", self.outcomes[job_id][0]
        job = self.jobs.get(job_id)
        if job is None:
            return "missing", b""
        if job.place in ("dead", "cancelled"):
            return self.status(job_id), b""
        job.inboxes = [name for name in job.inboxes if name != inbox] + ([inbox] if enter else [])
        return "pending", b""

    # Small steps

    def holds_now(self, job_id: bytes, hold: bytes) -> bool:
        """Tell whether a hold is the current one; whether it is started is not compared."""
        job = self.jobs.get(job_id)
        return job is not None and job.place == "held" and job.hold.replace(b"-", b"+") == hold.replace(b"-", b"+")

    def note_hold(self, job_id: bytes, hold: bytes) -> None:
        self.jobs[job_id].hold = hold
        self.holds.append((job_id, hold))

    def lay(self, ghosts: set[bytes]) -> None:
        """Forget ghosts that were met: only those given still stand in a list."""
        for level, ids in self.lists.items():
            self.lists[level] = [job_id for job_id in ids if job_id not in self.ghosts or job_id in ghosts]
        self.ghosts &= ghosts

    def _end(
        self, verb: str, job_id: bytes, number: int, text: bytes, extra: str, fronts: list[bytes], *, letter: bool
    ) -> None:
        job = self.jobs[job_id]
        if verb == "complete":
            self._complete(job_id, text, number)
            return
        if verb in ("retry", "defer", "dead"):
            job.state = extra.encode()
            job.errors = text if verb != "defer" else job.errors
        if verb == "dead":
            self.totals["failed"] += 1
            self._finish(job_id, "dead")
            if letter:
                self.letter[job_id] = self.jobs.pop(job_id)
                self.letter[job_id].progress = b""
        elif verb == "cancel" or job.asked:
            self._finish(job_id, "cancelled")
        elif verb == "back":
            fronts.append(job_id)
            job.place, job.hold, job.worker = "waiting", b"", ""
        else:
            self.totals["retried"] += verb == "retry"
            self._park(job_id, delayed=number > 0)

    def _follow(self, job_id: bytes, level: int, *, accepted: bool, delayed: bool) -> None:
        if accepted and job_id not in self.jobs:
            self.jobs[job_id] = ModelJob(level, "")
            self._park(job_id, delayed=delayed)

    def _complete(self, job_id: bytes, outcome: bytes, keep_ms: int) -> None:
        self._tell(job_id, "completed", outcome)
        del self.jobs[job_id]
        self.totals["completed"] += 1
        if keep_ms:
            self.outcomes[job_id] = (outcome, self.moment)

    def _finish(self, job_id: bytes, place: str) -> None:
        job = self.jobs[job_id]
        job.place, job.hold, job.worker, job.asked, job.due = place, b"", "", False, 0
        job.key = ""
        job.ended = self.moment
        self._tell(job_id, "failed" if place == "dead" else place, b"")

    def _park(self, job_id: bytes, *, delayed: bool) -> None:
        job = self.jobs[job_id]
        job.place, job.hold, job.worker = "delayed" if delayed else "waiting", b"", ""
        if not delayed:
            self.lists[job.level].append(job_id)

    def _readable(self, job_id: bytes) -> bool:
        """Tell whether an outcome is there and not past its age; until it is swept away it is only counted."""
        return job_id in self.outcomes and self.outcomes[job_id][1] >= 0

    def _tell(self, job_id: bytes, status: str, outcome: bytes) -> None:
        job = self.jobs[job_id]
        self.told += [(inbox, job_id, status, outcome) for inbox in job.inboxes]
        job.inboxes = []

    def _due(self, job_id: bytes) -> int:
        return self.jobs[job_id].due
