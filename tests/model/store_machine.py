"""The machine that drives the scripts on a real server and a plain model side by side."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from headrace.store import replies
from tests.model.store_facts import BODY, HOUR_MS, INBOXES, LEASE_MS, LETTER, QUEUE, WORKERS, StoreFacts
from tests.support.direct import finish


class StoreMachine(StoreFacts):
    """Time never passes by itself: leases run out, jobs fall due and history ages because their scores are changed."""

    # Producers

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Most of what is worth seeing needs some jobs of several priorities, a few of them held."""
        self.enqueue(amount=1, level=5, delayed=False, key="k1", resent=False)
        for level in (1, 5):
            self.enqueue(amount=3, level=level, delayed=False, key="", resent=False)
        self.enqueue(amount=2, level=5, delayed=True, key="", resent=False)
        for worker in data.draw(st.sampled_from(((), WORKERS[:1], WORKERS[:2]))):
            self.reserve(worker, start=data.draw(st.integers(0, 2)), prefetch=1, token=True)
        for job_id in self.model.ids("held")[:2]:
            self.watch_one(job_id, INBOXES[0], enter=True)

    @rule(
        amount=st.integers(1, 3), level=st.sampled_from((1, 5, 20)), delayed=st.booleans(),
        key=st.sampled_from(("", "", "k1", "k2")), resent=st.booleans(),
    )  # fmt: skip
    def enqueue(self, amount: int, level: int, *, delayed: bool, key: str, resent: bool) -> None:
        ids = self._fresh(1 if key else amount)

        reply = self._enqueue(ids, level, HOUR_MS if delayed else 0, key, resent=resent)

        holder = self.model.enqueue(ids, level, delayed=delayed, key=key)
        assert reply[:2] == [0 if holder else len(ids), holder]
        assert reply[2] == (not holder and any(self.model.leases.values()))
        if not holder:
            self.model.batches.append((level, ids))

    @precondition(lambda self: self.model.batches)
    @rule(data=st.data())
    def resend(self, data: st.DataObject) -> None:
        """A producer that lost a reply sends the same batch again, whatever has become of its jobs meanwhile."""
        level, ids = data.draw(st.sampled_from(self.model.batches))

        reply = self._enqueue(ids, level, 0, "", resent=True)

        assert reply[:2] == [0, b""]

    @precondition(lambda self: self.model.ids("delayed"))
    @rule(data=st.data())
    def fall_due(self, data: st.DataObject) -> None:
        for job_id in data.draw(st.lists(st.sampled_from(self.model.ids("delayed")), min_size=1, unique=True)):
            job = self.model.jobs[job_id]
            job.due = next(self.due)
            self.raw("ZADD", self.keys["delayed"], job.due * 32 + 20 - job.level, job_id)

    @rule()
    def promote(self) -> None:
        promoted = finish(self.store.promote(self.direct, QUEUE))

        due = sum(1 for job_id in self.model.ids("delayed") if self.model.jobs[job_id].due)
        self.model.promote()
        assert promoted.moved == due
        assert (promoted.next_due_ms > 0) == bool(self.model.ids("delayed"))

    # Workers

    @rule(worker=st.sampled_from(WORKERS), start=st.integers(0, 3), prefetch=st.integers(0, 3), token=st.booleans())
    def reserve(self, worker: str, start: int, prefetch: int, *, token: bool) -> None:
        if token and start and not self.model.paused and not self.model.leases.get(worker):
            self.raw("LPOP", self.keys["wake"])

        (reply,) = self._run(self.store.pack_reserve(self.calls, worker, LEASE_MS, start, prefetch))

        reserved = replies.parse_reserved(reply)
        status, taken = self.model.reserve(worker, start, prefetch)
        assert reserved.status == status
        assert reserved.ids == [job_id for job_id, _ in taken]
        assert [replies.is_started(hold) for hold in reserved.holds] == [started for _, started in taken]
        fences = {replies.fence_of(hold) for hold in reserved.holds}
        assert len(fences) <= 1
        assert all(fence > self.model.fence for fence in fences)
        assert {replies.worker_of(hold).partition("+")[2] or replies.worker_of(hold) for hold in reserved.holds} <= {
            worker
        }
        self.model.fence = max([self.model.fence, *fences])
        for at, (job_id, hold) in enumerate(zip(reserved.ids, reserved.holds, strict=True)):
            self.model.note_hold(job_id, hold)
            job = self.model.jobs[job_id]
            assert reserved.known.get(at, (b"", b""))[0] == job.state
            record = reserved.records[at] or b""
            assert (record[1], record[8:]) == (job.level, BODY)
        if status == 0:
            assert reserved.remain or not self.model.waiting()
            assert (reserved.next_due_ms > 0) == bool(self.model.ids("delayed"))

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), letter=st.booleans())
    def settle(self, data: st.DataObject, *, letter: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.model.leases)))
        plain, entries = self._draw_ends(data, worker)
        ended = {job_id for job_id, hold in plain if self.model.holds_now(job_id, hold)}
        ended |= {one[1] for one in entries if one[0] != "start" and self.model.holds_now(one[1], one[2])}
        idle = set(self.model.held_by(worker)) <= ended and data.draw(st.booleans())

        reply = self._settle(worker, plain, entries, idle=idle, letter=letter)

        refused = self.model.settle(worker, plain, entries, idle=idle, letter=letter)
        assert reply[0] == (-1 if refused is None else 0)
        assert reply[2] == (refused or [])
        if refused is not None:
            self._trim("cancelled", "completed", "letter" if letter else "dead")

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.model.leases)))

        (reply,) = self._run(self.store.pack_renew(self.calls, worker, LEASE_MS))

        assert reply[0] == (-1 if self.model.leases[worker] else 0)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), max_stalled=st.sampled_from((None, 0, 1, 2)))
    def lease_runs_out(self, data: st.DataObject, max_stalled: int | None) -> None:
        worker = data.draw(st.sampled_from(sorted(self.model.leases)))
        self.model.leases[worker] = next(self.due)

        self.raw("ZADD", self.keys["leases"], self.model.leases[worker], worker)

        if max_stalled is not None:
            self.reclaim(max_stalled)

    @rule(max_stalled=st.integers(0, 2))
    def reclaim(self, max_stalled: int) -> None:
        pages = finish(self.store.reclaim(self.direct, QUEUE, max_stalled))

        found = [(page.back, page.died, page.unstarted) for page in pages]
        assert tuple(sum(column) for column in zip(*found, strict=True)) == self.model.reclaim(max_stalled)

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        current_holds = [(job_id, self.model.jobs[job_id].hold) for job_id in self.model.ids("held")]
        job_id, hold = data.draw(st.sampled_from(current_holds or self.model.holds) | st.sampled_from(self.model.holds))
        job = self.model.jobs.get(job_id)
        current = self.model.holds_now(job_id, hold)

        noted = finish(self.store.report(self.direct, QUEUE, job_id.decode(), hold, b"\x92\x05\xa0"))

        assert noted == current
        if job is not None and current:
            job.progress = b"\x92\x05\xa0"

    # Operators and users

    @precondition(lambda self: self.model.jobs or self.model.outcomes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted([*self.model.jobs, *self.model.outcomes])))

        fresh = self.model.status(job_id) != "cancelled"

        answer = finish(self.store.cancel(self.direct, QUEUE, job_id.decode()))

        assert answer == self.model.cancel(job_id)
        if fresh and answer == "cancelled":
            self._trim("cancelled")

    @precondition(lambda self: self.model.jobs or self.model.letter)
    @rule(data=st.data(), letter=st.booleans())
    def retry(self, data: st.DataObject, *, letter: bool) -> None:
        known = sorted({*self.model.jobs, *self.model.letter})
        ids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))

        moved = finish(self.store.retry(self.direct, QUEUE, ids, LETTER if letter else None))

        assert moved == self.model.retry(ids, letter=letter)

    @rule(paused=st.booleans())
    def pause(self, *, paused: bool) -> None:
        changed = finish(self.store.pause(self.direct, QUEUE, paused=paused))

        assert changed == (paused != self.model.paused)
        self.model.paused = paused

    @rule(status=st.sampled_from(("waiting", "delayed", "completed", "failed", "cancelled")), limit=st.integers(1, 5))
    def clear(self, status: str, limit: int) -> None:
        total = 0
        while deleted := finish(self.store.clear(self.direct, QUEUE, status, limit)):
            total += deleted

        assert total == len(self.model.clear(status))

    @precondition(lambda self: self.model.jobs or self.model.outcomes)
    @rule(data=st.data(), inbox=st.sampled_from(INBOXES), enter=st.sampled_from((True, True, False)))
    def watch(self, data: st.DataObject, inbox: str, *, enter: bool) -> None:
        self.watch_one(self._draw_job(data), inbox, enter=enter)

    def watch_one(self, job_id: bytes, inbox: str, *, enter: bool) -> None:
        answer = finish(self.store.watch(self.direct, QUEUE, job_id.decode(), inbox, enter=enter))

        assert answer == self.model.watch(job_id, inbox, enter=enter)

    @rule()
    def look(self) -> None:
        """Page through everything, and compare what each worker is believed to hold."""
        for worker in WORKERS:
            mine = finish(self.store.mine(self.direct, QUEUE, worker))
            assert mine == {job_id: self.model.jobs[job_id].hold for job_id in self.model.held_by(worker)}
        known = [*self.model.jobs, *self.model.outcomes]
        for status in ("waiting", "delayed", "active", "completed", "failed", "cancelled"):
            found = self._list(status)
            assert sorted(found) == sorted(job_id for job_id in known if self.model.status(job_id) == status)
            assert status != "waiting" or found == self.model.waiting()

    @precondition(lambda self: self.model.ids("dead", "cancelled") or self.model.outcomes)
    @rule(data=st.data())
    def grow_old(self, data: st.DataObject) -> None:
        """History passes its age; the next settle may trim it."""
        job_id = data.draw(st.sampled_from(sorted([*self.model.ids("dead", "cancelled"), *self.model.outcomes])))
        if job_id in self.model.outcomes:
            key = "kept"
            self.model.outcomes[job_id] = (self.model.outcomes[job_id][0], -1)
        else:
            key = self.model.jobs[job_id].place
            self.model.jobs[job_id].ended = -1

        self.raw("ZADD", self.keys[key], next(self.due), job_id)
