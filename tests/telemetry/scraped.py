"""What a scrape returned, as Prometheus's own parser reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from headrace.telemetry.metrics import METRICS_BY_NAME

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample


class Scraped:
    """The metrics of one answer.

    Attributes:
        families: By the name that is declared.
    """

    def __init__(self, text: str) -> None:
        # The parser leaves `_total` out of the names of counters, as OpenMetrics does.
        self.families: dict[str, Metric] = {
            family.name + ("_total" if family.type == "counter" else ""): family
            for family in text_string_to_metric_families(text)
        }

    def value(self, name: str, **labels: str) -> float:
        """Return the one value of a metric with these labels."""
        (found,) = self.values(name, **labels)
        return found

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the values of all samples of a metric that have these labels."""
        return [one.value for one in self._samples(name) if labels.items() <= one.labels.items()]

    def labels(self, name: str, label: str) -> set[str]:
        """Return the values of a label."""
        return {one.labels[label] for one in self._samples(name)}

    def _samples(self, name: str) -> list[Sample]:
        of = next((name.removesuffix(end) for end in ("_bucket", "_count", "_sum") if name.endswith(end)), name)
        assert of in METRICS_BY_NAME, f"{of} is not declared"
        family = self.families.get(of)
        return [] if family is None else [one for one in family.samples if one.name == name]

    def check(self) -> None:
        """Hold everything against what is declared: names, types, labels, and how many series there are."""
        processes = max([1.0, *self.values("headrace_processes")])
        for name, family in self.families.items():
            metric = METRICS_BY_NAME[name]
            assert family.type == metric.type, name
            assert family.documentation == metric.text, name
            assert len(family.samples) <= metric.bound * processes, name
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(metric.all_labels), name
            series = [(sample.name, *sorted(sample.labels.items())) for sample in family.samples]
            assert len(series) == len(set(series)), name
