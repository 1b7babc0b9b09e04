"""One queue as a worker serves it: what it holds of it, what is to be settled, what comes next."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias

from headrace.store.replies import fence_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.store.store import QueueCalls, Store
    from headrace.worker.attempt import Attempt

#: Jobs in one call of settle; more are settled by further calls of the same round trip.
SETTLE_CALL_JOBS: Final = 1_000
#: Cancels of unknown jobs that are remembered while a reserve is under way.
MAX_EARLY: Final = 10_000
#: Entries that only count together with the one before them.
TOGETHER: Final = ("follow",)


#: Verb, id, hold, number, text, extra: see settle.lua.
Entry: TypeAlias = tuple[str, bytes, bytes, int, bytes | str, str]
#: What a call of settle carries: dead-letter queue, plain ids and holds, entries, attempts that it marks as started.
Sent: TypeAlias = "tuple[str | None, list[bytes], list[Entry], list[Attempt]]"

#: So long after a job that it left to others came due a worker does not ask for it by itself, seconds.
OTHERS_FIRST: Final = 1.0


class Served:
    """The state of one queue in one worker. All jobs that the worker holds of it are in `attempts`.

    Args:
        name: Name of the queue.
        store: Packs its calls.
        limit: Most slots that it may use, None for no limit of its own.
        worker: Name of the worker in its lease.
    """

    __slots__ = (
        "attempts", "calls", "channel", "early", "giving_way", "hot", "lease_at", "limit", "look_after", "lost",
        "name", "next_due", "next_lease", "parked", "paused", "plain", "reconcile", "refused", "rich", "running",
        "spent", "starting", "store", "turned", "uncertain", "worker", "worker_base",
    )  # fmt: skip

    def __init__(self, name: str, store: Store, limit: int | None, worker: str) -> None:
        self.name = name
        self.store = store
        self.calls: QueueCalls = store.queue(name)
        self.channel = self.calls.keys.control
        self.limit = limit
        self.worker_base = worker
        #: Name of the worker in its current lease.
        self.worker = worker
        #: Leases that ran out: what was sent under an earlier one says nothing about the present one.
        self.lost = 0
        self.hot = True
        self.paused = False
        #: The server refused a call for this queue a moment ago; it is left alone until it is tried again.
        self.refused = False
        #: Something was told since the last reserve was sent, so that its reply may be older.
        self.turned = False
        #: Cancels of unknown jobs since the last reserve was sent: its reply may bring them.
        self.early: set[bytes] = set()
        #: Loop time when the lease was last extended.
        self.lease_at = 0.0
        #: Loop times of the next due job and of the next lease that runs out, 0 for none known.
        self.next_due = 0.0
        self.next_lease = 0.0
        #: Loop time until which jobs that come due are offered to other workers first.
        self.giving_way = 0.0
        #: Loop time before which neither is looked at again, after the server refused to.
        self.look_after = 0.0
        self.attempts: dict[bytes, Attempt] = {}
        self.running = 0
        #: Jobs that wait because the queue uses all slots that it may; bounded by what is reserved.
        self.parked: deque[Attempt] = deque()
        #: Completed jobs with nothing to keep: id, hold, id, hold ...
        self.plain: list[bytes] = []
        #: Entries of settle by dead-letter queue.
        self.rich: dict[str | None, list[Entry]] = {}
        #: Seconds that the attempts to be settled ran.
        self.spent = 0.0
        #: Attempts that run although the server only knows them as held.
        self.starting: list[Attempt] = []
        #: A reply was lost: the server may believe that this worker holds more than it does.
        self.reconcile = False
        #: A settle was sent without an answer: what is refused now may have been recorded then.
        self.uncertain = False

    def lose_lease(self) -> None:
        """Forget all that was held under a lease that ran out, and take a new name for the next."""
        self.lost += 1
        self.worker = f"{self.worker_base}.{self.lost}"
        self.attempts.clear()
        self.plain.clear()
        self.rich.clear()
        self.starting.clear()
        self.parked.clear()
        self.reconcile = self.uncertain = False

    def heat(self) -> None:
        """Note that there may be jobs, whatever the reply of a reserve under way says, which may be older."""
        self.hot = self.turned = True

    def give_way(self, due: float) -> None:
        """Leave the job that is due then to others: this worker knows the time best, and would always be first."""
        self.giving_way = max(self.giving_way, due + OTHERS_FIRST)

    @property
    def pending(self) -> int:
        """Jobs that wait to be settled."""
        return len(self.plain) // 2 + sum(len(entries) for entries in self.rich.values())

    def note_cancel(self, job_id: bytes) -> None:
        """Remember a cancel of a job that this worker does not know, and may get with the reply under way."""
        if len(self.early) < MAX_EARLY:
            self.early.add(job_id)

    def add_entry(
        self,
        verb: str,
        job_id: bytes,
        hold: bytes,
        number: int,
        text: bytes | str,
        extra: str,
        letter: str | None = None,
    ) -> None:
        """Add one entry to what the next round trip settles."""
        entries = self.rich.get(letter)
        if entries is None:
            entries = self.rich[letter] = []
        entries.append((verb, job_id, hold, number, text, extra))

    def take(self, limit_bytes: int) -> tuple[list[bytes], dict[str | None, list[Entry]]]:
        """Return what is to be settled now and forget it; entries beyond `limit_bytes` of text stay for the next."""
        plain, self.plain = self.plain, []
        rich, self.rich = self.rich, {}
        size = 0
        for letter, entries in rich.items():
            for at, entry in enumerate(entries):
                size += len(entry[4])
                if size > limit_bytes and at and entry[0] not in TOGETHER:
                    self.rich[letter] = entries[at:]
                    del entries[at:]
                    break
        return plain, rich

    def pack_settles(self, lease_ms: int, limits: tuple[int, int, int], limit_bytes: int) -> list[tuple[bytes, Sent]]:
        """Pack what is to be settled now, as calls of settle, and forget it.

        Args:
            lease_ms: Length of the lease that the calls extend.
            limits: Finished jobs kept, dead jobs kept, and for how many ms: see settle.lua.
            limit_bytes: About this much text travels at most.

        Returns:
            Each call with what is in it.
        """
        started, self.starting = self.starting, []
        marks: list[Entry] = [
            ("start", attempt.id_bytes, attempt.hold, 0, "", "")
            for attempt in started
            if attempt.id_bytes in self.attempts
        ]
        plain, rich = self.take(limit_bytes)
        spent_ms, self.spent = round(self.spent * 1000), 0.0
        step = 2 * SETTLE_CALL_JOBS
        calls: list[tuple[str | None, list[bytes], list[Entry]]] = [
            *((None, plain[at : at + step], []) for at in range(0, len(plain), step)),
            *((None, [], part) for part in split_entries(marks, SETTLE_CALL_JOBS)),
            *(
                (letter, [], part)
                for letter, entries in rich.items()
                for part in split_entries(entries, SETTLE_CALL_JOBS)
            ),
        ]
        idle = int(not self.attempts and not self.rich and not self.reconcile)
        packed: list[tuple[bytes, Sent]] = []
        for index, (letter, some, entries) in enumerate(calls):
            last = index == len(calls) - 1
            script = (self.calls if letter is None else self.store.queue(self.name, letter))["settle"]
            head = (self.worker, lease_ms, idle if last else 0, spent_ms if last else 0, *limits)
            payload = script.pack((*head, len(some) // 2, *some, *chain.from_iterable(entries)))
            packed.append((payload, (letter, some, entries, started if last else [])))
        return packed

    def restore(self, sent: Sent) -> None:
        """Put back what was in a call of settle that did not come back: what of it took effect is not known."""
        letter, some, entries, started = sent
        self.uncertain = True
        self.plain[:0] = some
        self.starting += started
        kept = [entry for entry in entries if entry[0] != "start"]
        if kept:
            self.rich[letter] = [*kept, *self.rich.get(letter, [])]

    def hand_back_unknown(self, mine: Mapping[bytes, bytes]) -> None:
        """Hand back what the server believes that this worker holds, by id and hold, and it does not."""
        known = dict(zip(self.plain[::2], self.plain[1::2], strict=True))
        for entries in self.rich.values():
            known.update((job_id, hold) for verb, job_id, hold, *_ in entries if verb != "follow")
        known.update((job_id, attempt.hold) for job_id, attempt in self.attempts.items())
        for job_id, hold in mine.items():
            # Why: the same job may be held anew, under a later fence than that of an end which is sent again.
            if fence_of(known.get(job_id, b"")) != fence_of(hold):
                self.add_entry("back", job_id, hold, 0, "", "")


def split_entries(entries: list[Entry], count: int) -> list[list[Entry]]:
    """Cut entries into parts of about `count`, never between an end and what only counts together with it.

    Example:
        >>> end, more = ("complete", b"i", b"h", 0, "", ""), ("follow", b"j", b"", 0, b"", "5")
        >>> [len(part) for part in split_entries([end, end, more, end], 2)]
        [3, 1]
    """
    parts: list[list[Entry]] = []
    for entry in entries:
        if not parts or (len(parts[-1]) >= count and entry[0] not in TOGETHER):
            parts.append([])
        parts[-1].append(entry)
    return parts
