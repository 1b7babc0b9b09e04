"""Whether a worker is consuming: it takes jobs, or would if there were any. One that has stopped taking jobs is not.

A worker whose slots are all busy is consuming. One that is told not to take any, or cannot, is alive and not ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.health.verdict import WorkerState

if TYPE_CHECKING:
    from headrace.worker.running import Running
    from headrace.worker.worker import Worker


def describe(worker: Worker, parts: Running | None) -> WorkerState:
    """Say how a worker is.

    Args:
        worker: The worker.
        parts: Its parts; None before it runs and after it has ended.
    """
    reasons = _reasons(worker, parts)
    return WorkerState(
        id=worker.id,
        ready=not reasons,
        reasons=reasons,
        queues=tuple(worker.queues),
        running=len(parts.slots.running) if parts is not None else 0,
        slots=worker.concurrency,
    )


def _reasons(worker: Worker, parts: Running | None) -> tuple[str, ...]:
    """Say why a worker is not consuming; empty when it is."""
    if parts is None:
        return ("it has ended",) if worker.signals.stopped.is_set() else ("it has not started",)
    if not parts.flights.reserving:
        return ("it takes no further jobs: it stops, or the process is short of memory",)
    if not worker.signals.started.is_set():
        return ("it is starting",)
    reasons = []
    queues = parts.queues.values()
    if all(served.paused for served in queues):
        reasons.append(f"all of its queues are paused: {', '.join(parts.queues)}")
    elif all(served.paused or served.refused for served in queues):
        reasons.append("the server refuses its calls for every queue that is not paused; the log says why")
    if parts.jobs_trouble:
        reasons.append(f"its jobs lane has no connection: {parts.jobs_trouble}")
    return tuple(reasons)
