"""Write figures in the text format of Prometheus, by its own library, which is loaded with the first scrape.

docs/decisions/0020-metrics.md says why the library, and how several processes answer one scrape.
"""

from __future__ import annotations

import functools
import importlib
from collections import defaultdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from headrace.errors import UsageError
from headrace.telemetry.metrics import METRICS, POWERS, Type
from headrace.telemetry.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from headrace.census import Census
    from headrace.telemetry.metrics import Metric
    from headrace.telemetry.samples import Counted

#: What each process told, by its number; None for one that told nothing.
Told: TypeAlias = "Mapping[str, Sequence[Sample] | None]"
LIBRARY: Final = "prometheus_client.core"
#: What the text is, for the field Content-Type of an answer.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def load_library() -> ModuleType:
    """Return the parts of `prometheus_client` that make metrics.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module(LIBRARY)
    except ImportError as error:
        text = "metrics need the library prometheus-client, which is not installed"
        raise UsageError(f"{text}. Install it: pip install 'headrace[metrics]'.") from error


async def compose(
    processes: Told, counted: Counted | None, census: Census, places: Mapping[str, Sequence[Sample]] | None = None
) -> str:
    """Write the answer to one scrape in a thread; see `write`.

    Args:
        processes: What each process told.
        counted: What the server told of the queues.
        census: Where the thread is entered.
        places: What the supervisor tells of each process.
    """
    # Why: 200 queues take 30 ms, and the first time the library some 40 ms, for which the loop need not stand still.
    return await census.in_thread(write, processes, counted, places, name="write metrics", owner="telemetry")


def write(processes: Told, counted: Counted | None, places: Mapping[str, Sequence[Sample]] | None = None) -> str:
    """Write the answer to one scrape.

    Args:
        processes: What each process told, by its number; None for one that told nothing.
        counted: What the server told of the queues; None where nobody asked.
        places: What the supervisor tells of each process, by its number.

    Raises:
        UsageError: The library is not installed.
    """
    library = load_library()
    writer = importlib.import_module("prometheus_client.exposition")
    text: bytes = writer.generate_latest(_Page(list(families(library, processes, counted, places or {}))))
    return text.decode()


def families(
    library: ModuleType, processes: Told, counted: Counted | None, places: Mapping[str, Sequence[Sample]]
) -> Iterator[Any]:
    """Yield what is told as metric families of the library; a metric that nothing is told of is left out."""
    found: defaultdict[str, list[tuple[list[str], Sample]]] = defaultdict(list)
    for sample in _of_answer(processes, counted):
        found[sample.name].append((sample.labels, sample))
    for number, samples in processes.items():
        for sample in (*(samples or ()), *places.get(number, ())):
            found[sample.name].append(([number, *sample.labels], sample))
    for metric in METRICS:
        if metric.name in found:
            yield _family(library, metric, found[metric.name])


@functools.cache
def _version() -> str:
    return version("headrace")


class _Page:
    """What the library calls a collector."""

    def __init__(self, found: list[Any]) -> None:
        self._found = found

    def collect(self) -> Iterable[Any]:
        return self._found


def _of_answer(processes: Told, counted: Counted | None) -> Iterator[Sample]:
    yield Sample("headrace_build_info", [_version()], 1)
    if processes:
        yield Sample("headrace_processes", value=len(processes))
        answered = sum(samples is not None for samples in processes.values())
        yield Sample("headrace_processes_answered", value=answered)
    if counted is not None:
        yield from counted.samples()


def _family(library: ModuleType, metric: Metric, found: Iterable[tuple[list[str], Sample]]) -> Any:
    if metric.type is Type.HISTOGRAM:
        family = library.HistogramMetricFamily(metric.name, metric.text, labels=metric.all_labels)
        for labels, sample in found:
            family.add_metric(labels, list(_buckets(sample.counts)), sum_value=sample.value)
        return family
    kind = library.CounterMetricFamily if metric.type is Type.COUNTER else library.GaugeMetricFamily
    family = kind(metric.name.removesuffix("_total"), metric.text, labels=metric.all_labels)
    for labels, sample in found:
        family.add_metric(labels, sample.value)
    return family


def _buckets(counts: Sequence[int]) -> Iterator[tuple[str, int]]:
    total = 0
    for edge, count in zip([*(str(2**power / 1_000_000) for power in POWERS), "+Inf"], counts, strict=True):
        total += count
        yield edge, total
