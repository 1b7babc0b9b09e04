"""Read what the parts of a process count anyway, when somebody looks: nothing is counted twice, or for this alone."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

from headrace.duty import Totals
from headrace.health.verdict import Status
from headrace.logs import find_handler
from headrace.telemetry.carried import Carried
from headrace.telemetry.metrics import MAX_DUTIES, MAX_KINDS, MAX_QUEUES, OTHER, POWERS
from headrace.telemetry.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from headrace.census import Census
    from headrace.clock import Clock
    from headrace.events import EventBus
    from headrace.health.monitor import Monitor
    from headrace.histogram import Histogram
    from headrace.memory.governor import Governor
    from headrace.pool.pool import Pool
    from headrace.worker.worker import Worker

OUTCOMES = ("completed", "failed", "retried", "refused")


class Shown(Protocol):
    """What is read of an open app."""

    @property
    def census_book(self) -> Census: ...  # noqa: D102 - as the parts of the app are called

    @property
    def clock(self) -> Clock: ...  # noqa: D102 - as above

    @property
    def memory(self) -> Governor: ...  # noqa: D102 - as above

    @property
    def pool(self) -> Pool: ...  # noqa: D102 - as above

    @property
    def monitor(self) -> Monitor: ...  # noqa: D102 - as above

    events: EventBus


class ProcessFigures:
    """Read the figures of one process.

    Args:
        app: The open app.
        workers: Returns its workers.
    """

    def __init__(self, app: Shown, workers: Callable[[], Sequence[Worker]]) -> None:
        self._app = app
        self._workers = workers
        self._of_workers = Carried(len(OUTCOMES) + 4)
        self._of_subscribers = Carried(3)

    def read(self) -> list[Sample]:
        """Return all of them, as of now; takes about a millisecond."""
        app = self._app
        return [
            *self._read_workers(),
            *_server(app.monitor),
            *_pool(app.pool),
            *_memory(app.memory),
            *_by_kind("headrace_census", app.census_book.counts()),
            *_clock(app.clock),
            *self._read_events(),
            *_log(),
        ]

    def _read_workers(self) -> Iterator[Sample]:
        workers = self._workers()
        stats = [(worker, worker.stats()) for worker in workers]
        totals = self._of_workers.add(
            (
                worker,
                (
                    *(getattr(one, outcome) for outcome in OUTCOMES),
                    *(one.reserved, one.reclaimed, one.round_trips, one.loop_stalls),
                ),
            )
            for worker, one in stats
        )
        running = [worker for worker in workers if worker.is_running]
        yield Sample("headrace_workers", value=len(running))
        yield Sample("headrace_workers_consuming", value=sum(worker.state().ready for worker in running))
        yield Sample("headrace_slots", value=sum(worker.concurrency for worker in running))
        # Why not as the governor has it: it holds back the workers of all apps of the process.
        yield Sample("headrace_slots_allowed", value=sum(worker.slots_allowed for worker in running))
        yield Sample("headrace_jobs_running", value=sum(one.running for _, one in stats))
        yield Sample("headrace_jobs_buffered", value=sum(one.buffered for _, one in stats))
        for outcome, total in zip(OUTCOMES, totals, strict=False):
            yield Sample("headrace_jobs_settled_total", [outcome], total)
        names = ("jobs_reserved", "jobs_reclaimed", "jobs_round_trips", "loop_stalls")
        for name, total in zip(names, totals[len(OUTCOMES) :], strict=True):
            yield Sample(f"headrace_{name}_total", value=total)
        yield from _leases(running)

    def _read_events(self) -> Iterator[Sample]:
        subscribers = [(one, one.stats()) for one in self._app.events.subscriptions()]
        totals = self._of_subscribers.add(
            (one, (stats.delivered, stats.dropped, stats.failures)) for one, stats in subscribers
        )
        yield Sample("headrace_events_subscriptions", value=len(subscribers))
        yield Sample("headrace_events_waiting", value=sum(stats.waiting for _, stats in subscribers))
        for name, total in zip(("delivered", "dropped", "failures"), totals, strict=True):
            yield Sample(f"headrace_events_{name}_total", value=total)


def _leases(workers: Iterable[Worker]) -> Iterator[Sample]:
    ages: dict[str, float] = {}
    for worker in workers:
        for queue, age in worker.lease_ages().items():
            ages[queue] = max(age, ages.get(queue, 0.0))
    # Why the oldest: they are those that somebody has to look at.
    for queue in sorted(ages, key=lambda queue: -ages[queue])[:MAX_QUEUES]:
        yield Sample("headrace_lease_age_seconds", [queue], ages[queue])


def _server(monitor: Monitor) -> Iterator[Sample]:
    for status in Status:
        yield Sample("headrace_server_status", [str(status)], int(status is monitor.redis))
    yield _histogram("headrace_server_latency_seconds", monitor.latencies())
    yield Sample("headrace_loop_lag_seconds", value=monitor.loop_lag.last)


def _pool(pool: Pool) -> Iterator[Sample]:
    stats, times = pool.stats(), pool.times()
    for kind in ("active", "idle", "opening"):
        yield Sample("headrace_pool_connections", [kind], getattr(stats, kind))
    yield Sample("headrace_pool_connections_maximum", value=stats.maximum)
    for name in ("waiting", "waiting_highest", "opened_total", "closed_total", "failed_total", "calls_total"):
        yield Sample(f"headrace_pool_{name}", value=getattr(stats, name))
    yield from (_histogram(f"headrace_pool_{name}_seconds", histogram) for name, histogram in times.items())
    yield from _by_kind("headrace_pool_errors_total", stats.errors)
    for name, lane in stats.lanes.items():
        yield Sample("headrace_pool_lane_connections", [name, "active"], lane.active)
        yield Sample("headrace_pool_lane_connections", [name, "opening"], lane.opening)
        yield Sample("headrace_pool_lane_share", [name], lane.share)
        yield Sample("headrace_pool_lane_waiting", [name], lane.waiting)
        yield Sample("headrace_pool_timeouts_total", [name], lane.timeouts_total)


def _memory(governor: Governor) -> Iterator[Sample]:
    status = governor.status()
    steps = ("normal", "elevated", "high", "critical")
    yield Sample("headrace_memory_used_bytes", value=status.used_bytes)
    yield Sample("headrace_memory_limit_bytes", value=status.limit.budget_bytes)
    yield Sample("headrace_memory_used_ratio", value=status.share)
    yield Sample("headrace_memory_step", value=steps.index(status.step))
    yield Sample("headrace_memory_leak_suspected", value=int(status.leak_suspected))
    yield Sample("headrace_memory_history_bytes", value=status.history_bytes)
    yield Sample("headrace_memory_history_limit_bytes", value=status.history_limit_bytes)
    yield Sample("headrace_memory_replacements_total", value=status.replacements_asked)
    yield from _by_kind("headrace_memory_group_events_total", status.group_events)
    for generation, count in enumerate(status.collector.collections):
        yield Sample("headrace_memory_collections_total", [str(generation)], count)


def _clock(clock: Clock) -> Iterator[Sample]:
    # Why by name: several workers, and pools, have duties of the same kind.
    totals = clock.totals()
    kept = set(sorted(totals, key=lambda name: -totals[name].runs)[:MAX_DUTIES])
    found: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * len(Totals._fields))
    for name, added in totals.items():
        figures = found[name if name in kept else OTHER]
        figures[:] = map(sum, zip(figures, added, strict=True))
    late: defaultdict[str, float] = defaultdict(float)
    for one in clock.stats():
        name = one.name if one.name in kept else OTHER
        late[name] = max(late[name], one.late_last)
    for name, figures in found.items():
        for what, value in zip(("runs", "skipped", "failures", "run_seconds"), figures, strict=True):
            yield Sample(f"headrace_clock_{what}_total", [name], value)
        if name in late:
            yield Sample("headrace_clock_late_seconds", [name], late[name])


def _log() -> Iterator[Sample]:
    handler = find_handler()
    if handler is not None:
        yield Sample("headrace_log_lines_folded_total", value=handler.fold.folded_total)


def _by_kind(name: str, values: Mapping[Any, float]) -> Iterator[Sample]:
    """Give each kind its series, the first of them by name, and one to the rest."""
    ordered = sorted((str(kind), value) for kind, value in values.items())
    for kind, value in ordered[:MAX_KINDS]:
        yield Sample(name, [kind], value)
    if rest := ordered[MAX_KINDS:]:
        yield Sample(name, [OTHER], sum(value for _, value in rest))


def _histogram(name: str, histogram: Histogram) -> Sample:
    return Sample(name, value=histogram.total, counts=histogram.below(POWERS))
