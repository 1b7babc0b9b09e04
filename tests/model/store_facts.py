"""What the model and the server must agree on after every step, and how the machine talks to the server."""

from __future__ import annotations

from itertools import count
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from headrace.pool.address import parse_address
from headrace.pool.sync_link import SyncLink
from headrace.store import replies
from headrace.store.store import Store
from tests.model.store_model import LEVELS, Entry, Plain, StoreModel
from tests.support.direct import Direct, finish
from tests.support.keyspace import dump_queue, problems
from tests.support.raw import Listener, Raw

QUEUE, LETTER, PREFIX = "mail", "mail-dead", "model"
WORKERS = ("w1", "w2", "w3.1")
INBOXES = ("model:inbox:a", "model:inbox:b")
BODY = b"\x00\x01t\x90"
LEASE_MS, KEEP_MS, HOUR_MS = 600_000, 604_800_000, 3_600_000
KEEP_COUNT = 4
VERBS = ("start", "complete", "complete", "complete", "retry", "dead", "cancel", "back", "defer")


class StoreFacts(RuleBasedStateMachine):
    """A model beside a real server, compared after every step."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.raw = Raw(self.url)
        self.raw("FLUSHDB")
        self.link = SyncLink(parse_address(self.url), name="model")
        self.direct = Direct(self.link)
        self.store = Store(PREFIX, where=self.url, keep_count=KEEP_COUNT, keep=KEEP_MS / 1000)
        self.calls = self.store.queue(QUEUE)
        self.keys = self.calls.keys
        self.listener = Listener(self.url, INBOXES)
        self.model = StoreModel()
        self.number = count()
        self.due = count(1)

    def teardown(self) -> None:
        self.listener.close()
        self.link.close()
        self.raw.link.close()

    # What always holds

    @invariant()
    def nothing_makes_no_sense(self) -> None:
        assert problems(self.raw, PREFIX) == []

    @invariant()
    def the_server_is_where_the_model_is(self) -> None:
        real, model = dump_queue(self.raw, PREFIX, QUEUE), self.model
        assert real.sets["ghosts"] <= model.ghosts
        model.lay(real.sets["ghosts"])

        def where(*places: str) -> set[bytes]:
            return set(model.ids(*places))

        assert set(real.jobs) == set(model.jobs)
        assert {level: real.wait(level) for level in LEVELS} == model.lists
        assert set(real.zsets["delayed"]) == where("delayed")
        holds = {job_id: hold for job_id, hold in real.hashes["held"].items() if job_id}
        assert holds == {job_id: model.jobs[job_id].hold for job_id in where("held")}
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
        letter = dump_queue(self.raw, PREFIX, LETTER)
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
        assert self.model.paused or not self.model.waiting() or self.raw("LLEN", self.keys["wake"]) == 1

    @invariant()
    def inboxes_were_told_once(self) -> None:
        told: list[tuple[str, bytes, str, bytes]] = []
        for inbox, message in self.listener.take():
            job_id, status, outcome = message.split(b" ", 2)
            told.append((inbox, job_id, status.decode(), outcome))

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

    def _draw_job(self, data: st.DataObject) -> bytes:
        """Draw a known job, whatever the number of those that are where it is."""
        places = [
            ids for place in ("waiting", "delayed", "held", "dead", "cancelled") if (ids := self.model.ids(place))
        ]
        places += [sorted(self.model.outcomes)] if self.model.outcomes else []
        return data.draw(st.sampled_from(data.draw(st.sampled_from(places))))

    def _list(self, status: str) -> list[bytes]:
        found: list[bytes] = []
        cursor = "0"
        for _ in range(200):
            cursor, ids = finish(self.store.list_ids(self.direct, QUEUE, status, cursor, 3))
            found += ids
            if cursor == "0":
                break
        return found

    def _draw_ends(self, data: st.DataObject, worker: str) -> tuple[list[Plain], list[Entry]]:
        """Draw what a worker settles: jobs it holds, and jobs it or others held at some time."""
        model = self.model
        current = [(job_id, model.jobs[job_id].hold) for job_id in model.held_by(worker)]
        old = [pair for pair in model.holds if pair not in current]
        foreign = [pair for pair in old if pair[0] in model.ids("held")]
        choices = [st.sampled_from(pairs) for pairs in (current, current, foreign, old) if pairs]
        if not choices:
            return [], []
        pairs = st.one_of(choices)
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

    def _trim(self, *places: str) -> None:
        """Follow the store in what history it trims: the oldest, those past their age, and never more than it must."""
        real, model = dump_queue(self.raw, PREFIX, QUEUE), self.model
        real_letter = dump_queue(self.raw, PREFIX, LETTER)
        ended = {
            "dead": {job_id: model.jobs[job_id].ended for job_id in model.ids("dead")},
            "cancelled": {job_id: model.jobs[job_id].ended for job_id in model.ids("cancelled")},
            "completed": {job_id: when for job_id, (_, when) in model.outcomes.items()},
            "letter": {job_id: job.ended for job_id, job in model.letter.items()},
        }
        left = {
            "dead": set(real.zsets["dead"]),
            "cancelled": set(real.zsets["cancelled"]),
            "completed": set(real.zsets["kept"]),
            "letter": set(real_letter.zsets["dead"]),
        }
        for place, before in ended.items():
            self._check_trimmed(place, before, left[place], may_trim=place in places)
            for job_id in before.keys() - left[place]:
                if place == "completed":
                    del model.outcomes[job_id]
                else:
                    del (model.letter if place == "letter" else model.jobs)[job_id]

    def _check_trimmed(self, place: str, before: dict[bytes, int], after: set[bytes], *, may_trim: bool) -> None:
        gone = {job_id: when for job_id, when in before.items() if job_id not in after}
        if not may_trim:
            assert not gone, f"{place}: trimmed by a call that does not look at it"
            return
        assert len(after) <= KEEP_COUNT, f"{place}: more is kept than allowed"
        assert all(before[job_id] >= 0 for job_id in after), f"{place}: kept beyond its age"
        young = {job_id: when for job_id, when in gone.items() if when >= 0}
        assert not young or len(after) == KEEP_COUNT, f"{place}: {set(young)} were trimmed without need"
        assert max(young.values(), default=0) <= min((before[job_id] for job_id in after), default=0) or not young, (
            place
        )
