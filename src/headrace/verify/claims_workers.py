"""The claim that somebody works: no worker has died without a word, and no jobs wait where nobody takes them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from headrace.sizing.facts import UNSEEN
from headrace.verify.claim import PROMISE, Claim
from headrace.verify.outcome import Grade, Outcome, worst

if TYPE_CHECKING:
    from headrace.session import Session
    from headrace.store.replies import WorkerFacts

#: Queues and dead workers that are looked at, so that the doctor stays quick.
MOST_QUEUES: Final = 100
MOST_DEAD: Final = 20
NAMED: Final = 5
#: A worker that died so long ago, seconds, says nothing of now when others do its work.
LONG_AGO: Final = 900.0


@dataclass(frozen=True, slots=True)
class Dead:
    """A worker that is registered and has no connection.

    Attributes:
        name: Its id.
        host: The machine that it ran on.
        pid: Its process there.
        ago: When it was last seen, seconds ago.
        held: Jobs that it still holds.
        replaced: Whether others serve all of its queues.
    """

    name: str
    host: str
    pid: int
    ago: float
    held: int
    replaced: bool

    @property
    def grade(self) -> Grade:
        """How bad it is: others may have taken over what it did."""
        if self.held or not self.replaced:
            return Grade.FAIL
        return Grade.PARTIAL if self.ago < LONG_AGO else Grade.PASS

    def __str__(self) -> str:
        """Say what became of it."""
        return (
            f"worker {self.name} (pid {self.pid} on {self.host}) is registered and has no connection: it died or is "
            f"cut off, and was last seen {self.ago:.0f} s ago; "
            + ("others serve its queues; " if self.replaced else "")
            + f"jobs that it holds: {self.held}"
        )


@dataclass(frozen=True, slots=True)
class WorkersSeen:
    """The workers below the user's prefix.

    Attributes:
        alive: How many are there.
        dead: Those that have gone without a word.
        waiting: Jobs that wait in queues which nobody serves, by queue.
        how: How the two were told apart.
    """

    alive: int = 0
    dead: list[Dead] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    how: str = ""


class WorkersLive(Claim[WorkersSeen]):
    """Registered workers are there, and no jobs wait for nobody."""

    name = "workers"
    threshold = "each registered worker is connected, and each queue with waiting jobs is served"
    source = PROMISE
    remedy = "Start the worker again, under something that restarts it (systemd, Kubernetes, --processes)."

    def judge(self, evidence: WorkersSeen) -> Outcome:
        """Name who has gone and what waits; one whose work others do is worth a look for a while, and no more."""
        dead = [str(each) for each in evidence.dead if each.grade is not Grade.PASS][:NAMED]
        waiting = [
            f"jobs that wait in queue '{queue}', which no worker serves: {count}"
            for queue, count in list(evidence.waiting.items())[:NAMED]
        ]
        figures = {"alive": evidence.alive, "dead": len(evidence.dead), "unserved": sum(evidence.waiting.values())}
        remedy = self.remedy
        if dead:
            remedy += " Its jobs are taken back by another worker when its lease has run out."
        elif waiting:
            remedy = f"Start a worker for {', '.join(evidence.waiting)}: `headrace worker module:app -q NAME`."
        gone = f"gone long ago, and others do their work: {len(evidence.dead)}" if evidence.dead else "none gone"
        return self.found(
            worst([Grade.FAIL if waiting else Grade.PASS, *(each.grade for each in evidence.dead)]),
            "; ".join([*dead, *waiting]) or f"{evidence.alive} there, {gone}",
            evidence.how,
            remedy=remedy,
            figures=figures,
        )


async def look_at_workers(session: Session) -> WorkersSeen:
    """Look at the registry of workers, their connections, and the queues.

    Args:
        session: Open parts of an app below the user's prefix.
    """
    store, control = session.store, session.control
    workers = await store.workers(control)
    connected = await session.connected()
    how = "registry of workers against CLIENT LIST"
    if connected is None:
        how = f"registry of workers; gone is who was not seen for {UNSEEN:.0f} s, as CLIENT LIST does not tell all"
    now = time.time()
    gone = {name: facts for name, facts in workers.items() if _is_gone(facts, connected, now)}
    served = {queue for name, facts in workers.items() if name not in gone for queue in facts.queues}
    dead = []
    for name, facts in list(gone.items())[:MOST_DEAD]:
        held = [len(await store.mine(control, queue, name)) for queue in facts.queues[:MOST_QUEUES]]
        ago, replaced = max(0.0, now - facts.seen), served.issuperset(facts.queues)
        dead.append(Dead(name, facts.host, facts.pid, ago, sum(held), replaced))
    waiting: dict[str, int] = {}
    for queue in (await store.queue_names(control))[:MOST_QUEUES]:
        if queue not in served and (counts := await store.stats(control, queue)).waiting and not counts.paused_since_ms:
            waiting[queue] = counts.waiting
    return WorkersSeen(len(workers) - len(gone), dead, waiting, how)


def _is_gone(facts: WorkerFacts, connected: set[str] | None, now: float) -> bool:
    if connected is None:
        return now - facts.seen > UNSEEN
    return f"{facts.host}:{facts.pid}" not in connected
