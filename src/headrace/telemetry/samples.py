"""What is told of one process and of the queues, small enough to be handed from a worker process to its supervisor."""

from __future__ import annotations

import msgspec


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value of a metric, or one histogram.

    Attributes:
        name: A name of `headrace.telemetry.metrics`.
        labels: Values of its labels in their order, without that of `process`.
        value: The value; of a histogram the sum of all that was counted.
        counts: What a histogram counted in each bucket, the last one without an upper edge.
    """

    name: str
    labels: list[str] = []
    value: float = 0.0
    counts: list[int] = []


class QueueRow(msgspec.Struct, frozen=True, array_like=True):
    """One queue; see `headrace.queue.QueueStats`. Totals count since the queue was made."""

    name: str
    waiting: int = 0
    delayed: int = 0
    active: int = 0
    failed: int = 0
    cancelled: int = 0
    paused: bool = False
    oldest_ms: int = 0
    consumers: int = 0
    leases: int = 0
    completed_total: int = 0
    failed_total: int = 0
    retried_total: int = 0
    stalled_total: int = 0
    spent_ms_total: int = 0

    def samples(self) -> list[Sample]:
        """Return its metrics."""
        queue = self.name
        jobs = ("waiting", "delayed", "active", "failed", "cancelled")
        settled = {"completed": self.completed_total, "failed": self.failed_total, "retried": self.retried_total}
        return [
            *(Sample("headrace_queue_jobs", [queue, status], getattr(self, status)) for status in jobs),
            Sample("headrace_queue_oldest_seconds", [queue], self.oldest_ms / 1000),
            Sample("headrace_queue_paused", [queue], int(self.paused)),
            Sample("headrace_queue_consumers", [queue], self.consumers),
            Sample("headrace_queue_leases", [queue], self.leases),
            *(Sample("headrace_queue_settled_total", [queue, end], total) for end, total in settled.items()),
            Sample("headrace_queue_stalled_total", [queue], self.stalled_total),
            Sample("headrace_queue_attempt_seconds_total", [queue], self.spent_ms_total / 1000),
        ]


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """What the server told of the queues.

    Attributes:
        up: Whether it did.
        known: Queues that there are.
        rows: Those that are told of.
    """

    up: bool = False
    known: int = 0
    rows: list[QueueRow] = []

    def samples(self) -> list[Sample]:
        """Return the metrics of all queues; only that the server is away when it told nothing."""
        if not self.up:
            return [Sample("headrace_server_up", value=0)]
        return [
            Sample("headrace_server_up", value=1),
            Sample("headrace_queues", value=self.known),
            Sample("headrace_queues_left_out", value=self.known - len(self.rows)),
            *(sample for row in self.rows for sample in row.samples()),
        ]
