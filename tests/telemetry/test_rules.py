"""The files in deploy/prometheus and the examples of docs/metrics.md can be read, and name only what is exported."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from headrace.telemetry.metrics import METRICS, METRICS_BY_NAME, POWERS, Metric, Scope, Type
from headrace.telemetry.prometheus import write
from headrace.telemetry.samples import Counted, QueueRow, Sample
from tests.tidy.tree import ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
promql = pytest.importorskip("promql_parser", reason="promql-parser is not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ROOT / "deploy" / "prometheus"
PAGE = (ROOT / "docs" / "metrics.md").read_text()
#: Labels that Prometheus adds to every target.
OF_TARGETS = {"instance", "job"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def page_queries() -> list[str]:
    """Return the queries of the page: its blocks of PromQL, one a line, and those inside its YAML."""
    found = [
        line for block in re.findall(r"```text\n# PromQL\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
    ]
    found += re.findall(r"^ +query: '?(.*?)'?$", PAGE, re.MULTILINE)
    return [line for line in found if line and not line.startswith("#")]


def selectors(expression: str) -> Iterator[Any]:
    """Yield what an expression selects; raises ValueError when it is no PromQL."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        if isinstance(node, promql.MatrixSelector):
            found.append(node.vector_selector)
        return True

    promql.walk(promql.parse(expression), visit)
    yield from {id(node): node for node in found}.values()


def metric_of(name: str) -> Metric:
    """Return the metric whose samples have this name."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    metric = METRICS_BY_NAME.get(base if base in METRICS_BY_NAME else name)
    assert metric is not None, f"{name} is not exported"
    assert (name != metric.name) == (metric.type is Type.HISTOGRAM), f"{name} of a {metric.type}"
    return metric


def check(expression: str) -> None:
    """Hold an expression against what is exported: names, labels, and functions that fit the type."""
    groups = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    grouped = {label.strip() for group in groups for label in group.split(",")}
    known = set(OF_TARGETS)
    nodes = list(selectors(expression))
    assert nodes, expression
    for node in nodes:
        metric = metric_of(node.name)
        known |= {*metric.all_labels, *(["le"] if metric.type is Type.HISTOGRAM else [])}
        assert {matcher.name for matcher in node.matchers.matchers} <= known, expression
        in_rate = re.search(rf"\b(?:rate|increase)\({node.name}\b", expression) is not None
        assert in_rate == (metric.type is not Type.GAUGE), f"{expression}: rate() is for what only grows"
        # Every target tells of the same queues.
        if metric.scope is Scope.QUEUE:
            assert not re.search(r"\bsum\b", expression), f"{expression}: sum counts each queue once for every target"
    assert grouped <= known, expression


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_names_what_is_exported(rule: dict[str, Any]) -> None:
    check(rule["expr"])

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "remedy"}
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    grouped = re.search(r"\bby \(([^)]*)\)", rule["expr"])
    kept = {label.strip() for label in grouped[1].split(",")} if grouped else None
    assert kept is None or used <= kept, "a label that the expression drops"


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the tool of Prometheus, where it is installed."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; it comes with Prometheus")
    return subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "deploy/prometheus/alerts.yml"),
        ("check", "config", "deploy/prometheus/prometheus.yml"),
        ("test", "rules", "tests/telemetry/alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_itself_takes_the_files(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    done = promtool(*arguments)

    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_itself_takes_the_text_and_has_no_advice() -> None:
    row = QueueRow('quote"back\\slash', waiting=3)
    counts = {Type.HISTOGRAM: [1] * (len(POWERS) + 1)}
    samples = [
        Sample(metric.name, ["x"] * len(metric.labels), 1, counts.get(metric.type, []))
        for metric in METRICS
        if metric.scope is Scope.PROCESS
    ]

    text = write({"1": samples, "2": samples}, Counted(up=True, known=1, rows=[row]))
    done = promtool("check", "metrics", text=text)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_alert_is_tried_on_a_fleet_at_work_and_on_one_in_trouble() -> None:
    at_work, in_trouble = yaml.safe_load((ROOT / "tests" / "telemetry" / "alerts_test.yml").read_text())["tests"]
    names = {rule["alert"] for rule in rules()}

    assert {one["alertname"] for one in at_work["alert_rule_test"]} == names
    (fired,) = in_trouble["promql_expr_test"]
    assert set(re.findall(r'alertname="(\w+)"', str(fired["exp_samples"]))) == names
    # What is tried is what is exported.
    for test in (at_work, in_trouble):
        for one in test["input_series"]:
            for node in selectors(one["series"]):
                assert {matcher.name for matcher in node.matchers.matchers} <= {
                    *metric_of(node.name).all_labels, *OF_TARGETS, "le",
                }  # fmt: skip


def test_the_alerts_are_few_and_each_has_its_name() -> None:
    names = [rule["alert"] for rule in rules()]

    assert len(names) == len(set(names)) == 9
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_the_scrape_configuration_is_one() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())

    assert config["rule_files"] == ["alerts.yml"]
    (job,) = config["scrape_configs"]
    # What a scrape takes at most, and what Prometheus calls for if nothing is said.
    assert 1 < int(job["scrape_timeout"].removesuffix("s")) <= 10
    assert job.get("metrics_path", "/metrics") == "/metrics"


def test_the_yaml_of_the_page_can_be_read() -> None:
    blocks = re.findall(r"```text\n# YAML\n(.*?)```", PAGE, re.DOTALL)

    assert len(blocks) >= 2
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks)


@pytest.mark.parametrize("query", page_queries())
def test_a_query_of_the_page_names_what_is_exported(query: str) -> None:
    check(query)


@pytest.mark.parametrize(
    "wrong",
    [
        "headrace_queue_jobs{",
        "headrace_gone > 0",
        "headrace_slots{lane='user'}",
        "max by (lane) (headrace_slots)",
        "rate(headrace_slots[5m])",
        "headrace_jobs_reserved_total > 5",
        "sum by (queue) (headrace_queue_jobs)",
        "headrace_pool_wait_seconds > 1",
    ],
)
def test_a_wrong_expression_is_found(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(wrong)
