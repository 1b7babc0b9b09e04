"""Every Redis key that Headrace uses, and the hash tag, in one place.

All keys of a queue carry the same hash tag `{queue}`, so that they live in one slot of a cluster and one script can
change them together. `p` stands for the prefix (setting HEADRACE_PREFIX), `q` for the queue::

    p:{q}:jobs       hash   id -> record; every job that is not completed
    p:{q}:wait:1-20  list   ids of waiting jobs, one list a priority, first in first out
    p:{q}:levels     zset   the priorities whose list may hold jobs (score = priority)
    p:{q}:ghosts     set    ids still in a list but cancelled or cleared; skipped when they come up
    p:{q}:delayed    zset   id -> due time, ms * 32 + 20 - priority
    p:{q}:held       hash   id -> hold: "fence+priority+worker" (started) or "fence-priority-worker" (not started)
    p:{q}:leases     zset   worker -> deadline of its lease, ms; only workers that hold jobs
    p:{q}:state      hash   id -> "attempts stalls deferrals reason"; only jobs with any of these
    p:{q}:errors     hash   id -> msgpack list of what each failed attempt raised, bounded
    p:{q}:progress   hash   id -> msgpack [percent, text]; only jobs that reported any
    p:{q}:dead       zset   id -> time of death, ms; bounded by count and age
    p:{q}:cancelled  zset   id -> time of cancellation, ms; bounded by count and age
    p:{q}:outcomes   hash   id -> msgpack outcome of a completed job, while its result is kept
    p:{q}:kept       zset   id -> time its outcome expires, ms; bounded by count
    p:{q}:waiters    hash   id -> inbox channels, separated by spaces, that wait for the result
    p:{q}:uniques    hash   unique key -> id of the pending job that holds it
    p:{q}:keyed      hash   id -> unique key, the other way round
    p:{q}:receipts   list   first ids of the latest 10,000 calls of enqueue, so that one sent again counts once
    p:{q}:cancels    set    ids of active jobs whose cancellation was asked for
    p:{q}:meta       hash   fence (the last one given), paused, totals, and the counts of the last 60 minutes
    p:{q}:wake       list   at most one token; an idle worker blocks on it
    p:{q}:wake:W     list   at most one token for worker W alone, expiring: look again which queues to block on
    p:{q}:log:ID     list   log lines of one job, bounded, expiring
    p:{q}:sources    set    in a cluster: queues whose dead this one takes as their dead-letter queue
    p:queues         set    names of the queues that were ever used
    p:workers        hash   worker -> msgpack facts (host, pid, queues, started, seen); bounded by removal of the gone
    p:budget         hash   process -> "deadline places note" (connections under a lease), * -> their sum; expiring
    p:settings       hash   number -> a version of the fleet's settings, last -> the latest number; 100 versions

In a cluster the dead of `q` that a dead-letter queue `L` takes lie in `p:{q}:letter:L:...`, in keys like those of a
queue: see `headrace.store.box`.

Channels (pub/sub): `p:{q}:control` tells workers of a queue to cancel a job, pause or resume; `p:inbox:APP` carries
outcomes to an app that waits for them; `p:settings` tells apps that the fleet's settings have changed, and asks them
for their figures and snapshots, which come back on `p:inbox:figures-ID:...`.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Priorities are whole numbers from 1 to 20, a list each.
LOWEST_PRIORITY, HIGHEST_PRIORITY = 1, 20


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue."""

    prefix: str
    queue: str

    def _key(self, part: str) -> str:
        return f"{self.prefix}:{{{self.queue}}}:{part}"

    def __getitem__(self, name: str) -> str:
        """Return the key with this name, as the scripts' headers spell it."""
        level = name.removeprefix("wait")
        return self._key(f"wait:{level}" if level.isdigit() else name)

    @property
    def wake(self) -> str:
        """The list that idle workers block on."""
        return self._key("wake")

    def own_wake(self, worker: str) -> str:
        """Return the list that one worker alone blocks on."""
        return self._key(f"wake:{worker}")

    @property
    def control(self) -> str:
        """The channel that tells workers of this queue what changed."""
        return self._key("control")

    def log(self, job_id: str) -> str:
        """Return the list of log lines of one job."""
        return self._key(f"log:{job_id}")


def queues_key(prefix: str) -> str:
    """Return the key of the set of queue names."""
    return f"{prefix}:queues"


def workers_key(prefix: str) -> str:
    """Return the key of the registry of workers."""
    return f"{prefix}:workers"


def budget_key(prefix: str) -> str:
    """Return the key of the connections that the processes of the fleet share."""
    return f"{prefix}:budget"


def settings_key(prefix: str) -> str:
    """Return the key of the settings that are stored for the whole fleet."""
    return f"{prefix}:settings"


def settings_channel(prefix: str) -> str:
    """Return the channel that tells running apps of a change of these settings, and asks them for their figures."""
    return f"{prefix}:settings"


def inbox_channel(prefix: str, app_id: str) -> str:
    """Return the channel that carries outcomes to one app."""
    return f"{prefix}:inbox:{app_id}"
