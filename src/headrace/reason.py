"""Why a job is where it is: a sentence and a stable word, made of what the server knows. Pure: nothing is asked here.

Job handles and `headrace jobs why` gather the facts, see `headrace.app.Headrace.surroundings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.errors import RecordCorrupt, RecordTooNew
from headrace.store.replies import held_since_ms, is_started, worker_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.record import Record
    from headrace.store.replies import Found, WorkerFacts

#: A worker registers anew every minute; one that has not for this long is taken for gone, seconds.
WORKER_SEEN: Final = 180.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around a job.

    Attributes:
        queue: Queue of the job.
        ahead: Waiting jobs that come before it; 0 for a job that does not wait.
        more: There may be more of them than were counted.
        workers: How many live workers serve its queue.
        holder: Host and process of the worker that holds it, as far as they are known.
        gone: That process is known to have no connection to the server.
    """

    queue: str
    ahead: int = 0
    more: bool = False
    workers: int = 0
    holder: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a job is where it is.

    Attributes:
        code: missing, completed, dead, cancelled, delayed, deferred, lease-lost, worker-gone, held, running, paused,
            no-worker, behind or next.
        text: One or two sentences for people.
    """

    code: str
    text: str


def look_around(
    queue: str,
    found: Found,
    workers: Mapping[str, WorkerFacts],
    ahead: tuple[int, bool] = (0, False),
    connected: set[str] | None = None,
) -> Surroundings:
    """Gather what `explain` says about the surroundings of a job.

    Args:
        queue: Queue of the job.
        found: What the server knows of the job.
        workers: The registry of workers.
        ahead: Jobs that come before it, and whether there may be more.
        connected: Each process that has a connection to the server, as `host:pid`; None when that is not known.
    """
    now = found.now_ms / 1000
    live = {name: facts for name, facts in workers.items() if now - facts.seen < WORKER_SEEN}
    # Why: after a lost lease a worker goes on under its name with a number behind it.
    holder = workers.get(worker_of(found.hold).partition(".")[0])
    return Surroundings(
        queue, *ahead,
        workers=sum(1 for facts in live.values() if queue in facts.queues),
        holder=f"{holder.host}, process {holder.pid}" if holder else "",
        gone=holder is not None and connected is not None and f"{holder.host}:{holder.pid}" not in connected,
    )  # fmt: skip


def explain(found: Found, around: Surroundings) -> Reason:
    """Say why a job is where it is.

    Args:
        found: What the server knows of the job.
        around: What stands around it.
    """
    return _EXPLAINED.get(found.status, _waiting)(found, around)


def span(duration_ms: int) -> str:
    """Write a duration for people, in one unit.

    Example:
        >>> [span(ms) for ms in (-5, 42, 3_210, 75_000, 7_260_000, 200_000_000)]
        ['0 ms', '42 ms', '3.2 s', '75 s', '121 min', '55.6 h']
    """
    if duration_ms < 1_000:  # noqa: PLR2004 - below a second
        return f"{max(0, duration_ms)} ms"
    if duration_ms < 60_000:  # noqa: PLR2004 - below a minute
        return f"{duration_ms / 1_000:.1f} s"
    if duration_ms < 600_000:  # noqa: PLR2004 - below ten minutes
        return f"{duration_ms / 1_000:.0f} s"
    if duration_ms < 36_000_000:  # noqa: PLR2004 - below ten hours
        return f"{duration_ms / 60_000:.0f} min"
    return f"{duration_ms / 3_600_000:.1f} h"


def _missing(_found: Found, _around: Surroundings) -> Reason:
    return Reason("missing", "There is no such job: it never was, or it completed and its outcome is not kept.")


def _completed(found: Found, _around: Surroundings) -> Reason:
    outcome = found.outcome
    if outcome is None or not outcome.finished_ms:
        return Reason("completed", "It completed.")
    tries = f" with attempt {outcome.attempt}" if outcome.attempt > 1 else ""
    return Reason("completed", f"It completed {span(found.now_ms - outcome.finished_ms)} ago{tries}.")


def _dead(found: Found, _around: Surroundings) -> Reason:
    state = found.state
    text = f"It has been dead for {span(found.now_ms - found.at_ms)}"
    if state.reason == "stalled":
        text += f": it stalled {_times(state.stalls)}, its worker was lost each time it ran"
    else:
        text += f" after {_count(state.attempts, 'attempt')}"
        if found.failures:
            text += f": {found.failures[-1].error}: {found.failures[-1].message}".rstrip(": ")
    text = text if text.endswith((".", "!", "?")) else text + "."
    if state.origin:
        text += f" It came from queue '{state.origin}'; a retry puts it back there."
    return Reason("dead", text)


def _cancelled(found: Found, _around: Surroundings) -> Reason:
    return Reason("cancelled", f"It was cancelled {span(found.now_ms - found.at_ms)} ago.")


def _delayed(found: Found, around: Surroundings) -> Reason:
    left = found.at_ms - found.now_ms
    due = f"is due in {span(left)}" if left > 0 else f"was due {span(-left)} ago"
    if found.state.deferrals:
        return Reason("deferred", f"{_deferred(found)} It {due}, when a worker looks at it again.")
    text = f"It {due}{_after_failures(found)}."
    if left <= 0 and not around.workers:
        return Reason("no-worker", f"{text} {_no_worker(around)}")
    if left <= 0 and found.paused:
        return Reason("paused", f"{text} {_paused(around)}")
    return Reason("delayed", text)


def _active(found: Found, around: Surroundings) -> Reason:
    worker = f"worker {worker_of(found.hold)}" + (f" ({around.holder})" if around.holder else "")
    since = held_since_ms(found.hold)
    held = f", since {span(found.now_ms - since)}" if since else ""
    if found.lease_deadline_ms < found.now_ms:
        lost = f" {span(found.now_ms - found.lease_deadline_ms)} ago" if found.lease_deadline_ms else ""
        text = f"Stalled: {worker} held it{held}, and its lease ran out{lost}. The next worker to look takes it back."
        return Reason("lease-lost", text if around.workers else f"{text} {_no_worker(around)}")
    if around.gone:
        left = span(found.lease_deadline_ms - found.now_ms)
        text = (
            f"W{worker[1:]} holds it{held}, and has no connection to the server: it died or is cut off. "
            f"Another worker takes the job back when its lease runs out, in {left}."
        )
        return Reason("worker-gone", text)
    if not is_started(found.hold):
        return Reason("held", f"W{worker[1:]} holds it{held}, and starts it as soon as a slot is free.")
    return Reason("running", f"It runs on {worker}{held}, attempt {found.state.attempts + 1}.")


def _waiting(found: Found, around: Surroundings) -> Reason:
    if found.paused:
        return Reason("paused", f"It waits{_after_failures(found)}. {_paused(around)}")
    text = f"It waits{_after_failures(found)}"
    if around.ahead or around.more:
        count = f"more than {around.ahead:,}" if around.more else f"{around.ahead:,}"
        text += f" behind {count} {'job' if count == '1' else 'jobs'} of the same or a higher priority"
    if not around.workers:
        return Reason("no-worker", f"{text}. {_no_worker(around)}")
    if found.state.deferrals:
        return Reason("deferred", f"{text}. {_deferred(found)}")
    serve = "1 worker serves" if around.workers == 1 else f"{around.workers} workers serve"
    if around.ahead or around.more:
        return Reason("behind", f"{text}; {serve} its queue.")
    return Reason("next", f"{text}, and is the next to run; {serve} its queue, and no slot of theirs is free.")


def _paused(around: Surroundings) -> str:
    return f"Queue '{around.queue}' is paused: resume it with `headrace queues resume {around.queue}`."


def _no_worker(around: Surroundings) -> str:
    return (
        f"No live worker serves queue '{around.queue}': start one with `headrace worker module:app -q {around.queue}`."
    )


def _deferred(found: Found) -> str:
    record: Record | None = None
    try:
        record = found.record()
    except RecordTooNew as error:
        cause = str(error)
    except RecordCorrupt:
        cause = "its record cannot be read."
    else:
        task = record.task if record else ""
        cause = f"none knew its task '{task}'. Start a worker that imports the module which defines it."
    return f"Workers left it to others {_times(found.state.deferrals)}: {cause}"


def _after_failures(found: Found) -> str:
    attempts = found.state.attempts
    if not attempts:
        return ""
    text = f" after {_count(attempts, 'attempt')}"
    if found.failures:
        text += f" ({found.failures[-1].error})"
    return text


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_EXPLAINED: Final = {
    "missing": _missing,
    "completed": _completed,
    "failed": _dead,
    "cancelled": _cancelled,
    "delayed": _delayed,
    "active": _active,
}
