"""Every metric: name, type, labels and meaning, in one list. The export and docs/metrics.md are made from it.

Names follow Prometheus: base units, the unit last, `_total` for what only grows. The values of every label are bounded,
so an app has a bounded number of series whatever it does; no job, worker or argument is ever a label.

Source: "Metric and label naming", prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Queues whose figures are exported; `headrace_queues_left_out` counts the others.
MAX_QUEUES: Final = 200
#: Duties of a clock, and kinds of errors and events, that have a series of their own; the rest is `other`.
MAX_DUTIES: Final = 32
MAX_KINDS: Final = 33
#: What stands for the rest.
OTHER: Final = "other"
#: Edges of the buckets of a histogram, as exponents of microseconds: from 0.128 ms to 16.8 s.
POWERS: Final = tuple(range(7, 25))


class Type(StrEnum):
    """How the values of a metric are read."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Scope(StrEnum):
    """What a metric is about."""

    #: One worker process, or one process with an app: the label `process` stands in front of the others.
    PROCESS = "process"
    #: A queue on the server; every process of the fleet would say the same.
    QUEUE = "queue"
    #: The answer itself.
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Label:
    """A label.

    Attributes:
        text: What its values are.
        bound: How many there are at most.
    """

    text: str
    bound: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name; that of a counter ends in `_total`.
        type: How its values are read.
        text: What it says; a sentence without its full stop.
        labels: Its labels, without `process`.
        scope: What it is about.
    """

    name: str
    type: Type
    text: str
    labels: tuple[str, ...] = ()
    scope: Scope = Scope.PROCESS

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Its labels as they are exported."""
        return ("process", *self.labels) if self.scope is Scope.PROCESS else self.labels

    @property
    def unit(self) -> str:
        """The unit in its name; empty for a count.

        Example:
            >>> [METRICS_BY_NAME[f"headrace_{name}"].unit for name in ("slots", "pool_wait_seconds")]
            ['', 'seconds']
        """
        word = self.name.removesuffix("_total").rpartition("_")[2]
        return word if word in {"seconds", "bytes", "ratio"} else ""

    @property
    def bound(self) -> int:
        """Series that it has at most, for one process."""
        lines = len(POWERS) + 3 if self.type is Type.HISTOGRAM else 1
        return lines * math.prod(LABELS[label].bound for label in self.labels)


LABELS: Final = {
    "process": Label("number of the process, from 1: its place under `headrace worker -p N`, or 1", 256),
    "queue": Label(f"name of a queue; {MAX_QUEUES} of them", MAX_QUEUES),
    "status": Label("a status of jobs, or of the server", 5),
    "outcome": Label("what became of attempts", 4),
    "lane": Label("lane of the pool", 4),
    "kind": Label("kind of a thing or an error, as the metric says", MAX_KINDS + 1),
    "duty": Label(f"name of a duty of the clock; {MAX_DUTIES} of them, and `{OTHER}`", MAX_DUTIES + 1),
    "version": Label("version of Headrace", 1),
}

_C, _G, _H = Type.COUNTER, Type.GAUGE, Type.HISTOGRAM
_QUEUE, _ANSWER = Scope.QUEUE, Scope.ANSWER

METRICS: Final = (
    # The answer
    Metric("headrace_build_info", _G, "1; the version is its label", ("version",), _ANSWER),
    Metric("headrace_processes", _G, "Processes that the answer is to tell of", (), _ANSWER),
    Metric("headrace_processes_answered", _G, "Those that it tells of; the others start or do not answer", (), _ANSWER),
    Metric("headrace_server_up", _G, "1 when the server told of the queues, 0 when it did not in time", (), _ANSWER),
    Metric("headrace_queues", _G, "Queues that were ever used", (), _ANSWER),
    Metric("headrace_queues_left_out", _G, "Queues that the answer tells nothing of", (), _ANSWER),
    # Queues
    Metric(
        "headrace_queue_jobs", _G, "Jobs that are waiting, delayed, active, failed (dead, kept) or cancelled (kept)",
        ("queue", "status"), _QUEUE,
    ),
    Metric("headrace_queue_oldest_seconds", _G, "Age of the oldest waiting job, 0 without one", ("queue",), _QUEUE),
    Metric("headrace_queue_paused", _G, "1 when workers are kept from reserving", ("queue",), _QUEUE),
    Metric(
        "headrace_queue_consumers", _G, "Workers that serve the queue and were seen in the last 3 minutes",
        ("queue",), _QUEUE,
    ),
    Metric("headrace_queue_leases", _G, "Workers that hold jobs of the queue", ("queue",), _QUEUE),
    Metric(
        "headrace_queue_settled_total", _C,
        "Attempts since the queue was made that completed, failed (the job is dead) or are retried",
        ("queue", "outcome"), _QUEUE,
    ),
    Metric(
        "headrace_queue_stalled_total", _C, "Jobs taken back from lost workers since the queue was made",
        ("queue",), _QUEUE,
    ),
    Metric(
        "headrace_queue_attempt_seconds_total", _C, "Time that the settled attempts ran, together",
        ("queue",), _QUEUE,
    ),
    # Workers
    Metric("headrace_workers", _G, "Workers that run in the process"),
    Metric("headrace_workers_consuming", _G, "Those that take jobs, or would if there were any"),
    Metric("headrace_slots", _G, "Slots of the workers"),
    Metric("headrace_slots_allowed", _G, "Slots that may be used now; fewer when memory runs short"),
    Metric("headrace_jobs_running", _G, "Jobs that run and have waited for something at least once"),
    Metric("headrace_jobs_buffered", _G, "Jobs that are held ahead"),
    Metric("headrace_jobs_reserved_total", _C, "Jobs that were reserved"),
    Metric(
        "headrace_jobs_settled_total", _C,
        "Attempts that completed, failed (the job is dead), are retried, or were refused (the lease was lost)",
        ("outcome",),
    ),
    Metric("headrace_jobs_reclaimed_total", _C, "Jobs that the workers took back from lost ones"),
    Metric("headrace_jobs_round_trips_total", _C, "Round trips that settled and reserved jobs"),
    Metric(
        "headrace_lease_age_seconds", _G, "Time since the lease on jobs in hand was extended; only while there are any",
        ("queue",),
    ),
    # The server and the loop
    Metric("headrace_server_status", _G, "1 for the present one of healthy, degraded, unhealthy", ("status",)),
    Metric("headrace_server_latency_seconds", _H, "Round trips on the control lane, with any delay of the own loop"),
    Metric("headrace_loop_lag_seconds", _G, "Longest delay of the event loop during the last look"),
    Metric("headrace_loop_stalls_total", _C, "Times that a task kept the event loop too long"),
    # The pool
    Metric("headrace_pool_connections", _G, "Connections that are active, idle or opening", ("kind",)),
    Metric("headrace_pool_connections_maximum", _G, "Connections that the pool never passes"),
    Metric("headrace_pool_waiting", _G, "Callers without a connection"),
    Metric("headrace_pool_waiting_highest", _G, "The most of them in the last minute"),
    Metric("headrace_pool_wait_seconds", _H, "Waits for a connection, those of no time included"),
    Metric("headrace_pool_response_seconds", _H, "From acquire to release, and round trips outside the blocking lane"),
    Metric("headrace_pool_opened_total", _C, "Connections opened"),
    Metric("headrace_pool_closed_total", _C, "Connections closed"),
    Metric("headrace_pool_failed_total", _C, "Attempts to open that failed, and connections that broke"),
    Metric("headrace_pool_calls_total", _C, "Leases of connections that ended, and calls on links"),
    Metric("headrace_pool_timeouts_total", _C, "Waits that ran out", ("lane",)),
    Metric("headrace_pool_errors_total", _C, "Errors by class", ("kind",)),
    Metric("headrace_pool_lane_connections", _G, "Connections of a lane that are active or opening", ("lane", "kind")),
    Metric("headrace_pool_lane_share", _G, "Connections that a lane may use", ("lane",)),
    Metric("headrace_pool_lane_waiting", _G, "Callers that wait for one of a lane", ("lane",)),
    # Memory
    Metric("headrace_memory_used_bytes", _G, "Resident size of the process and of the children that run its jobs"),
    Metric("headrace_memory_limit_bytes", _G, "What may be used: the budget, by the tightest limit"),
    Metric("headrace_memory_used_ratio", _G, "How much of the tightest limit is used; 1 is all of it"),
    Metric("headrace_memory_step", _G, "0 normal, 1 elevated, 2 high, 3 critical"),
    Metric("headrace_memory_leak_suspected", _G, "1 when memory grows for so long that a leak is suspected"),
    Metric("headrace_memory_history_bytes", _G, "What all bounded histories and buffers hold"),
    Metric("headrace_memory_history_limit_bytes", _G, "What they hold at most"),
    Metric("headrace_memory_replacements_total", _C, "Times that the process asked to be replaced"),
    Metric("headrace_memory_group_events_total", _C, "What the kernel counts of the control group", ("kind",)),
    Metric("headrace_memory_collections_total", _C, "Collections of garbage by generation", ("kind",)),
    # What lives
    Metric("headrace_census", _G, "Live timers, tasks, subscriptions, connections, threads, processes", ("kind",)),
    Metric("headrace_clock_runs_total", _C, "Runs of a duty or alarm", ("duty",)),
    Metric("headrace_clock_skipped_total", _C, "Due times that passed without a run", ("duty",)),
    Metric("headrace_clock_failures_total", _C, "Runs that raised", ("duty",)),
    Metric("headrace_clock_late_seconds", _G, "From the due time to the start of the last run", ("duty",)),
    Metric("headrace_clock_run_seconds_total", _C, "Time of all runs, waits included", ("duty",)),
    Metric("headrace_events_subscriptions", _G, "Open subscriptions"),
    Metric("headrace_events_waiting", _G, "Events that wait for subscribers"),
    Metric("headrace_events_delivered_total", _C, "Events that subscribers got"),
    Metric("headrace_events_dropped_total", _C, "Events that they lost because they were too slow"),
    Metric("headrace_events_failures_total", _C, "Calls of subscribers that raised"),
    Metric("headrace_log_lines_folded_total", _C, "Log lines that were counted and not printed, as they repeat"),
    # The supervisor
    Metric("headrace_process_starts_total", _C, "Processes that the supervisor started in this place"),
    Metric("headrace_process_crashes_total", _C, "Those that ended without having been told to"),
)  # fmt: skip

METRICS_BY_NAME: Final = {metric.name: metric for metric in METRICS}
