"""Every metric is declared once and well: names, units, labels and bounds."""

from __future__ import annotations

import re

import pytest

from headrace.telemetry.metrics import LABELS, MAX_QUEUES, METRICS, METRICS_BY_NAME, Metric, Scope, Type


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_advises(metric: Metric) -> None:
    assert re.fullmatch(r"headrace(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.type is Type.COUNTER)
    assert not re.search(r"_(ms|millis\w*|minutes|kb|mb|percent|count)(_|$)", metric.name), "base units only"
    assert metric.type is not Type.HISTOGRAM or metric.unit == "seconds"
    assert metric.text[0].isupper() or metric.text[0].isdigit()
    assert not metric.text.endswith(".")


def test_no_metric_is_declared_twice() -> None:
    assert len(METRICS_BY_NAME) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_labels_are_known_and_none_of_them_names_a_job(metric: Metric) -> None:
    assert set(metric.all_labels) <= LABELS.keys()
    assert not set(metric.all_labels) & {"job", "id", "worker", "task", "instance"}
    assert ("process" in metric.all_labels) == (metric.scope is Scope.PROCESS)
    assert metric.scope is not Scope.QUEUE or metric.labels[0] == "queue"


def test_one_process_has_a_bounded_number_of_series() -> None:
    own = sum(metric.bound for metric in METRICS if metric.scope is Scope.PROCESS)
    queues = sum(metric.bound for metric in METRICS if metric.scope is Scope.QUEUE)

    assert own < 1_000
    assert queues <= 15 * MAX_QUEUES
