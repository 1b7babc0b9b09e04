"""The transitions of a job: docs/state-machine.md is written from them, and test_states.py carries them out.

The picture of them is drawn in picture.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Outside of the queue: not enqueued yet, or deleted.
NOWHERE: Final = "[*]"


@dataclass(frozen=True, slots=True)
class Transition:
    """One way from a status to another.

    Attributes:
        source: Status before, or NOWHERE.
        target: Status after, or NOWHERE.
        script: Lua file that makes it, with the verb of its entry where it has several: `settle retry`.
        cause: What happened, in the words of a user.
    """

    source: str
    target: str
    script: str
    cause: str

    @property
    def file(self) -> str:
        """Name of the Lua file."""
        return self.script.partition(" ")[0]


# From, to, script, cause; parted by two spaces.
_LISTED: Final = """
[*]        waiting    enqueue          enqueued
[*]        delayed    enqueue          enqueued with a delay
[*]        waiting    settle follow    enqueued by `current_job().follow(...)`, with the completion of that job
delayed    waiting    promote          it is due; a reserve that finds it due does the same on its way
delayed    cancelled  cancel           `job.cancel()`
waiting    active     reserve          a worker takes it under its lease
waiting    cancelled  cancel           `job.cancel()`
active     completed  settle complete  the task returned
active     [*]        settle complete  the task returned, and `keep_result=0`: no trace stays
active     delayed    settle retry     the task raised, an attempt is left, and the backoff says to wait
active     waiting    settle retry     as above, with a backoff of 0
active     delayed    settle defer     this worker does not know the task, or cannot read the record; no attempt burnt
active     waiting    settle back      the worker stops, or the queue is paused before the job starts; no attempt burnt
active     waiting    reclaim          its worker's lease ran out; an attempt burnt only if the job had started
active     failed     settle dead      the task raised, and no attempt is left, or the error is not one to retry
active     failed     reclaim          it stalled more often than HEADRACE_MAX_STALLED
active     cancelled  settle cancel    `job.cancel()` while it ran, and the task stopped
active     cancelled  reclaim          `job.cancel()` while it ran, and its worker's lease ran out
failed     waiting    retry            `job.retry()` or `queue.retry_failed()`, with all its attempts
cancelled  waiting    retry            `job.retry()`, with all its attempts
completed  [*]        settle           its outcome expired, or is beyond HEADRACE_KEEP_FINISHED_COUNT
failed     [*]        settle           it is older than HEADRACE_KEEP_DEAD, or beyond HEADRACE_KEEP_DEAD_COUNT
cancelled  [*]        settle           it is older than HEADRACE_KEEP_DEAD, or beyond HEADRACE_KEEP_FINISHED_COUNT
waiting    [*]        clear            `queue.clear("waiting")`
delayed    [*]        clear            `queue.clear("delayed")`
completed  [*]        clear            `queue.clear("completed")`
failed     [*]        clear            `queue.clear("failed")`
cancelled  [*]        clear            `queue.clear("cancelled")`
"""

TRANSITIONS: Final = tuple(Transition(*re.split(r" {2,}", line)) for line in _LISTED.strip().splitlines())

#: Scripts that leave the status of every job as it is.
ELSEWHERE: Final = {
    *("budget", "find", "list", "mine", "pause", "rank", "renew", "report", "settings_read", "settings_write", "stats"),
    *("survey", "watch"),
}


def transitions_table() -> str:
    """The transitions as a table."""
    lines = ["| from | to | script | when |", "| --- | --- | --- | --- |"]
    for each in TRANSITIONS:
        source, target = (status.replace(NOWHERE, "(none)") for status in (each.source, each.target))
        verb = each.script.partition(" ")[2]
        link = f"[{each.file}](../src/headrace/store/lua/{each.file}.lua)" + (f" `{verb}`" if verb else "")
        lines.append(f"| {source} | {target} | {link} | {each.cause} |")
    return "\n".join(lines)
