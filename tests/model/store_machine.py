"""The machine that drives the scripts on a real server and a plain model side by side, and compares them."""

from __future__ import annotations

from itertools import count
from typing import Any, ClassVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.store import replies
from headrace.store.store import Store
from tests.model.store_model import LEVELS, Entry, Plain, StoreModel
from tests.support.direct import Direct, finish
from tests.support.keyspace import dump_queue, problems

QUEUE, LETTER, PREFIX = "mail", "mail-dead", "model"
WORKERS = ("w1", "w2", "w3.1")
INBOXES = ("model:inbox:a", "model:inbox:b")
BODY = b"\x00\x01t\x90"
LEASE_MS, KEEP_MS, HOUR_MS = 600_000, 604_800_000, 3_600_000
KEEP_COUNT, MAX_STALLED = 4, 1
VERBS = ("start", "complete", "complete", "retry", "dead", "cancel", "back", "defer")


class StoreMachine(RuleBasedStateMachine):
    """Time never passes by itself: leases run out, jobs fall due and history ages because their scores are changed."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(self.url, protocol=2)
        self.client.flushdb()
        self.link = SyncLink(parse_address(self.url), name="model")
        self.direct = Direct(self.link)
        self.store = Store(PREFIX, where=self.url)
        self.calls = self.store.queue(QUEUE)
        self.keys = self.calls.keys
        self.pushed = self.client.pubsub()
        self.pushed.subscribe(*INBOXES)
        for _ in INBOXES:
            self.pushed.get_message(timeout=5)
        self.model = StoreModel()
        self.number = count()
        self.due = count(1)

    def teardown(self) -> None:
        self.pushed.close()
        self.client.close()
        self.link.close()

    # Producers

    @initialize(start=st.booleans())
    def begin(self, *, start: bool) -> None:
        if start:
            self.enqueue(amount=3, level=5, delayed=False, key="", resent=False)

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
        job_id = data.draw(st.sampled_from(self.model.ids("delayed")))
        job = self.model.jobs[job_id]
        job.due = next(self.due)

        self.client.zadd(self.keys["delayed"], {job_id: job.due * 32 + 20 - job.level})

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
            self.client.lpop(self.keys["wake"])

        (reply,) = self._run(self.store.pack_reserve(self.calls, worker, LEASE_MS, start, prefetch))

        reserved = replies.parse_reserved(reply)
        status, taken = self.model.reserve(worker, start, prefetch)
        assert reserved.status == status
        assert reserved.ids == [job_id for job_id, _ in taken]
        assert [replies.is_started(hold) for hold in reserved.holds] == [
            started for _, started in taken
        ]
        fences = {replies.fence_of(hold) for hold in reserved.holds}
        assert len(fences) <= 1
        assert all(fence > self.model.fence for fence in fences)
        assert {replies.worker_of(hold).partition("+")[2] or replies.worker_of(hold) for hold in reserved.holds} <= {worker}
        self.model.fence = max([self.model.fence, *fences])
        for at, (job_id, hold) in enumerate(zip(reserved.ids, reserved.holds, strict=True)):
            self.model.note_hold(job_id, hold)
            job = self.model.jobs[job_id]
            assert reserved.known.get(at, (b"", b""))[0] == job.state
            assert reserved.records[at] is not None
            assert reserved.records[at][8:] == BODY
            assert reserved.records[at][1] == job.level
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
            self._trim(letter=letter)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.model.leases)))

        (reply,) = self._run(self.store.pack_renew(self.calls, worker, LEASE_MS))

        assert reply[0] == (-1 if self.model.leases[worker] else 0)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.model.leases)))
        self.model.leases[worker] = next(self.due)

        self.client.zadd(self.keys["leases"], {worker: self.model.leases[worker]})

    @rule()
    def reclaim(self) -> None:
        pages = finish(self.store.reclaim(self.direct, QUEUE, MAX_STALLED))

        found = sum(page.back for page in pages), sum(page.died for page in pages), sum(page.unstarted for page in pages)
        assert found == self.model.reclaim(MAX_STALLED)

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        job_id, hold = data.draw(st.sampled_from(self.model.holds))
        job = self.model.jobs.get(job_id)
        current = job is not None and job.hold == hold

        noted = finish(self.store.report(self.direct, QUEUE, job_id.decode(), hold, b"\x92\x05\xa0"))

        assert noted == current
        if job is not None and current:
            job.progress = b"\x92\x05\xa0"

    @rule(worker=st.sampled_from(WORKERS))
    def mine(self, worker: str) -> None:
        found = finish(self.store.mine(self.direct, QUEUE, worker))

        assert found == {job_id: self.model.jobs[job_id].hold for job_id in self.model.held_by(worker)}

    # Operators and users

    @precondition(lambda self: self.model.jobs or self.model.outcomes)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted([*self.model.jobs, *self.model.outcomes])))

        answer = finish(self.store.cancel(self.direct, QUEUE, job_id.decode()))

        assert answer == self.model.cancel(job_id)

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
    @rule(data=st.data(), inbox=st.sampled_from(INBOXES), enter=st.booleans())
    def watch(self, data: st.DataObject, inbox: str, *, enter: bool) -> None:
        job_id = data.draw(st.sampled_from(sorted([*self.model.jobs, *self.model.outcomes])))

        answer = finish(self.store.watch(self.direct, QUEUE, job_id.decode(), inbox, enter=enter))

        assert answer == self.model.watch(job_id, inbox, enter=enter)

    @rule(status=st.sampled_from(("waiting", "delayed", "active", "completed", "failed", "cancelled")))
    def list_pages(self, status: str) -> None:
        found: list[bytes] = []
        cursor = "0"
        for _ in range(200):
            cursor, ids = finish(self.store.list_ids(self.direct, QUEUE, status, cursor, 2))
            found += ids
            if cursor == "0":
                break

        wanted = [job_id for job_id in [*self.model.jobs, *self.model.outcomes] if self.model.status(job_id) == status]
        assert sorted(found) == sorted(wanted)
        if status == "waiting":
            assert found == self.model.waiting()

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

        self.client.zadd(self.keys[key], {job_id: next(self.due)})

    # What always holds

    @invariant()
    def nothing_makes_no_sense(self) -> None:
        assert problems(self.client, PREFIX) == []

    @invariant()
    def the_server_is_where_the_model_is(self) -> None:
        real, model = dump_queue(self.client, PREFIX, QUEUE), self.model
        assert real.sets["ghosts"] <= model.ghosts
        model.lay(real.sets["ghosts"])

        def where(*places: str) -> set[bytes]:
            return set(model.ids(*places))

        assert set(real.jobs) == set(model.jobs)
        assert {level: real.wait(level) for level in LEVELS} == model.lists
        assert set(real.zsets["delayed"]) == where("delayed")
        assert real.hashes["held"] == {job_id: model.jobs[job_id].hold for job_id in where("held")}
        assert set(real.zsets["dead"]) == where("dead")
        assert set(real.zsets["cancelled"]) == where("cancelled")
        assert real.hashes["outcomes"] == {job_id: outcome for job_id, (outcome, _) in model.outcomes.items()}
        assert real.sets["cancels"] == {job_id for job_id in where("held") if model.jobs[job_id].asked}
        for part in ("state", "errors", "progress"):
            noted = {job_id: getattr(job, part) for job_id, job in model.jobs.items()}
            assert real.hashes[part] == {job_id: value for job_id, value in noted.items() if value}, part
        keys = {job.key.encode(): job_id for job_id, job in model.jobs.items() if job.key}
        assert real.hashes["uniques"] == keys
        assert {worker.decode() for worker in real.zsets["leases"]} == set(model.leases)
        letter = dump_queue(self.client, PREFIX, LETTER)
        assert set(letter.jobs) == set(letter.zsets["dead"]) == set(model.letter)
        assert letter.hashes["errors"] == {job_id: job.errors for job_id, job in model.letter.items()}

    @invariant()
    def stats_agree(self) -> None:
        counts, model = finish(self.store.stats(self.direct, QUEUE)), self.model

        assert (counts.waiting, counts.delayed, counts.active) == (
            len(model.waiting()), len(model.ids("delayed")), len(model.ids("held")),
        )  # fmt: skip
        assert (counts.dead, counts.cancelled) == (len(model.ids("dead")), len(model.ids("cancelled")))
        assert (counts.kept, counts.workers) == (len(model.outcomes), len(model.leases))
        assert (counts.paused_since_ms > 0) == model.paused
        assert {name: counts.totals.get(name, 0) for name in model.totals} == model.totals

    @invariant()
    def find_agrees(self) -> None:
        ids = [*self.model.jobs, *self.model.outcomes]
        found = self._run(*(self.calls["find"].pack((job_id,)) for job_id in ids)) if ids else []

        assert [reply[0].decode() for reply in found] == [self.model.status(job_id) for job_id in ids]

    @invariant()
    def waiting_jobs_have_a_wake_token(self) -> None:
        assert self.model.paused or not self.model.waiting() or self.client.llen(self.keys["wake"]) == 1

    @invariant()
    def inboxes_were_told_once(self) -> None:
        self.pushed.ping()
        told: list[tuple[str, bytes, str, bytes]] = []
        while (message := self.pushed.get_message(timeout=5)) and message["type"] != "pong":
            job_id, status, outcome = message["data"].split(b" ", 2)
            told.append((message["channel"].decode(), job_id, status.decode(), outcome))

        expected, self.model.told = self.model.told, []
        assert sorted(told) == sorted(expected)

    # Helpers

    def _fresh(self, amount: int) -> list[bytes]:
        return [b"j%04d" % next(self.number) for _ in range(amount)]

    def _run(self, *payloads: bytes) -> list[Any]:
        answers = self.store.run_sync(self.link, payloads)
        for answer in answers:
            replies.refuse(answer, "a script", "the model's server")
        return answers

    def _enqueue(self, ids: list[bytes], level: int, delay_ms: int, key: str, *, resent: bool) -> list[Any]:
        batch = [part for job_id in ids for part in (job_id, BODY)]
        payloads = self.store.pack_enqueue(QUEUE, level, delay_ms, batch, unique_key=key, resent=resent)
        reply: list[Any] = self._run(*payloads)[0]
        return reply

    def _settle(
        self, worker: str, plain: list[tuple[bytes, bytes]], entries: list[Any], *, idle: bool, letter: bool
    ) -> list[Any]:
        calls = self.store.queue(QUEUE, LETTER) if letter else self.calls
        flat = [part for pair in [*plain, *entries] for part in pair]
        head = (worker, LEASE_MS, int(idle), 7, KEEP_COUNT, KEEP_COUNT, KEEP_MS, len(plain))
        (reply,) = self._run(calls["settle"].pack((*head, *flat)))
        return list(reply)

    def _draw_ends(self, data: st.DataObject, worker: str) -> tuple[list[Plain], list[Entry]]:
        """Draw what a worker settles: jobs it holds, and jobs it or others held at some time."""
        model = self.model
        current = [(job_id, model.jobs[job_id].hold) for job_id in model.held_by(worker)]
        old = [pair for pair in model.holds if pair not in current]
        pairs = st.sampled_from(current) if current else st.nothing()
        pairs |= st.sampled_from(old) if old else st.nothing()
        if not current and not old:
            return [], []
        drawn = data.draw(st.lists(pairs, max_size=5, unique_by=lambda pair: pair[0]))
        plain, entries = [], []
        for job_id, hold in drawn:
            job = model.jobs.get(job_id)
            verb = data.draw(st.sampled_from(VERBS))
            if verb == "complete" and not (job and job.noted) and data.draw(st.booleans()):
                plain.append((job_id, hold))
                continue
            entries.append(self._entry(data, verb, job_id, hold))
            if verb == "complete" and data.draw(st.booleans()):
                level = data.draw(st.sampled_from((1, 5)))
                delay = data.draw(st.sampled_from((0, HOUR_MS)))
                entries.append(("follow", self._fresh(1)[0], b"", delay, BODY, str(level)))
        return plain, entries

    def _entry(self, data: st.DataObject, verb: str, job_id: bytes, hold: bytes) -> Entry:
        job = self.model.jobs.get(job_id)
        attempts, stalls, deferrals = job.counts() if job else [0, 0, 0]
        delay = data.draw(st.sampled_from((0, HOUR_MS))) if verb in ("retry", "defer", "complete") else 0
        if verb == "complete":
            return verb, job_id, hold, delay, b"\x93outcome", ""
        if verb in ("retry", "dead"):
            return verb, job_id, hold, delay, b"errors", f"{attempts + 1} {stalls} {deferrals}"
        return verb, job_id, hold, delay, b"", f"{attempts} {stalls} {deferrals + 1}" if verb == "defer" else ""

    def _trim(self, *, letter: bool) -> None:
        """Follow the store in what history it trims: the oldest, those past their age, and never more than it must."""
        real, model = dump_queue(self.client, PREFIX, QUEUE), self.model
        real_letter = dump_queue(self.client, PREFIX, LETTER)
        for place in ("dead", "cancelled"):
            before = {job_id: model.jobs[job_id].ended for job_id in model.ids(place)}
            after = set(real.zsets[place])
            self._check_trimmed(place, before, after, may_trim=not (letter and place == "dead"))
            for job_id in before.keys() - after:
                del model.jobs[job_id]
        kept = set(real.zsets["kept"])
        self._check_trimmed("completed", {job_id: at for job_id, (_, at) in model.outcomes.items()}, kept)
        model.outcomes = {job_id: outcome for job_id, outcome in model.outcomes.items() if job_id in kept}
        before = {job_id: job.ended for job_id, job in model.letter.items()}
        self._check_trimmed("letter", before, set(real_letter.zsets["dead"]), may_trim=letter)
        model.letter = {job_id: job for job_id, job in model.letter.items() if job_id in real_letter.zsets["dead"]}

    def _check_trimmed(self, place: str, before: dict[bytes, int], after: set[bytes], *, may_trim: bool = True) -> None:
        gone = {job_id: when for job_id, when in before.items() if job_id not in after}
        if not may_trim:
            assert not gone, f"{place}: trimmed by a call that does not look at it"
            return
        assert len(after) <= KEEP_COUNT, f"{place}: more is kept than allowed"
        assert all(before[job_id] >= 0 for job_id in after), f"{place}: kept beyond its age"
        young = {job_id: when for job_id, when in gone.items() if when >= 0}
        assert not young or len(after) == KEEP_COUNT, f"{place}: {set(young)} were trimmed without need"
