"""What KEDA scales by: its queries are run as its scalers run them, against queues with jobs in every status."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace, Priority
from headrace.keys import QueueKeys
from headrace.settings import Settings
from tests.deploy.parts import DEPLOY, document, documents
from tests.support.cluster import free_ports
from tests.telemetry.test_scrape import scrape
from tests.worker.command import WorkerCommand

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.support.raw import Raw

KEDA = "kubernetes/keda.yaml"
PROMETHEUS = "kubernetes/keda-prometheus.yaml"
WORKER = "kubernetes/worker.yaml"

#: What the scaler `redis` counts, by the type of the key. Source: KEDA 2.19, pkg/scalers/redis_scaler.go.
COUNTS = {"list": "LLEN", "hash": "HLEN", "zset": "ZCARD", "set": "SCARD", "none": "LLEN"}
#: The fields of a ScaledObject that are used here. Source: KEDA 2.19, "ScaledObject specification".
FIELDS: dict[str, Any] = {
    "scaleTargetRef": {"name"},
    "minReplicaCount": None,
    "maxReplicaCount": None,
    "pollingInterval": None,
    "fallback": {"failureThreshold", "replicas", "behavior"},
    "advanced": {"scalingModifiers", "horizontalPodAutoscalerConfig"},
    "triggers": None,
}
#: Those of the scaler. Source: KEDA 2.19, "Redis Lists".
METADATA = {"address", "listName", "listLength"}


def spec(name: str = KEDA) -> dict[str, Any]:
    return dict(document(name, "ScaledObject")["spec"])


def modifiers() -> dict[str, str]:
    return dict(spec()["advanced"]["scalingModifiers"])


def queue_keys() -> QueueKeys:
    return QueueKeys(Settings().prefix, "mail")


def measure(raw: Raw, prefix: str) -> dict[str, int]:
    """Return what each trigger measures, with the keys below another prefix."""
    found = {}
    for trigger in spec()["triggers"]:
        name = trigger["metadata"]["listName"].replace(f"{Settings().prefix}:", f"{prefix}:", 1)
        kind = raw("TYPE", name)
        found[trigger["name"]] = int(raw(COUNTS[kind.decode() if isinstance(kind, bytes) else kind], name))
    return found


def formula(figures: dict[str, int]) -> float:
    """Compute the formula, `condition ? one : other`; the parts mean the same in Python."""
    condition, both = modifiers()["formula"].split("?")
    one, other = both.split(":")
    return float(eval(f"({one}) if ({condition}) else ({other})", {"__builtins__": {}}, figures))


def replicas(figures: dict[str, int]) -> int:
    """Return how many pods the autoscaler asks for: the sum by what one pod is to have, within the bounds."""
    wanted = math.ceil(formula(figures) / float(modifiers()["target"]))
    least, most = int(spec()["minReplicaCount"]), int(spec()["maxReplicaCount"])
    return max(least, min(most, wanted))


def test_every_field_is_one_that_keda_knows() -> None:
    found = spec()

    assert found.keys() == FIELDS.keys()
    for name, inside in FIELDS.items():
        assert inside is None or set(found[name]) == inside, name
    for trigger in found["triggers"]:
        assert set(trigger) == {"type", "name", "metadata", "authenticationRef"}
        assert (trigger["type"], set(trigger["metadata"])) == ("redis", METADATA)
        assert all(isinstance(text, str) for text in trigger["metadata"].values())
    assert [each["apiVersion"] for each in documents(KEDA)] == ["keda.sh/v1alpha1"] * 2
    assert all(isinstance(text, str) for text in modifiers().values())


def test_it_scales_the_workers_and_asks_with_their_password() -> None:
    deployment = document(WORKER, "Deployment")

    assert spec()["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (secret,) = document(KEDA, "TriggerAuthentication")["spec"]["secretTargetRef"]
    (own,) = [
        each["valueFrom"]["secretKeyRef"]
        for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if "valueFrom" in each
    ]
    assert (secret["name"], secret["key"]) == (own["name"], own["key"])
    auth = document(KEDA, "TriggerAuthentication")["metadata"]["name"]
    assert {trigger["authenticationRef"]["name"] for trigger in spec()["triggers"]} == {auth}


def test_the_keys_are_those_of_the_queue_with_the_prefix_and_the_priority_that_a_task_has_by_default() -> None:
    names = {trigger["name"]: trigger["metadata"]["listName"] for trigger in spec()["triggers"]}

    keys = queue_keys()
    assert names == {"waiting": keys[f"wait{int(Priority.NORMAL)}"], "held": keys["held"]}


def test_a_pod_is_to_have_twice_its_slots() -> None:
    slots = int(document(WORKER, "ConfigMap")["data"]["QUEUE_CONCURRENCY"])

    assert float(modifiers()["target"]) == 2 * slots


async def test_the_formula_counts_the_jobs_that_wait_and_those_that_run(
    server: PrivateServer, raw: Raw, prefix: str
) -> None:
    app = Headrace(server.url, settings={"prefix": prefix})
    begun, gate = asyncio.Semaphore(0), asyncio.Event()

    @app.task(queue="mail", keep_result=0)
    async def send() -> None:
        begun.release()
        await gate.wait()

    async with app:
        assert formula(measure(raw, prefix)) == 0
        await send.enqueue_many([((), {})] * 250)
        assert replicas(measure(raw, prefix)) == 3
        worker = app.worker(queues=["mail"], concurrency=50)
        running = asyncio.create_task(worker.run())
        for _ in range(50):
            await begun.acquire()
        stats = await app.queue("mail").stats()
        figures = measure(raw, prefix)
        gate.set()
        await app.queue("mail").drain()
        worker.stop()
        await running

        # A pod that has taken jobs off the list still counts them: nobody scales it away while it works.
        assert stats.active >= 50
        assert formula(figures) == stats.waiting + stats.active == 250
        assert (formula(measure(raw, prefix)), replicas(measure(raw, prefix))) == (0, 1)


@pytest.mark.parametrize(
    ("waiting", "held", "pods"), [(0, 0, 1), (100, 0, 1), (101, 0, 2), (0, 1, 1), (9_000, 999, 20)]
)
def test_the_number_of_pods_stays_within_its_bounds(waiting: int, held: int, pods: int) -> None:
    assert replicas({"waiting": waiting, "held": held}) == pods


# By the metrics of the workers


def test_both_objects_are_for_the_same_workers_with_the_same_bounds() -> None:
    by_metrics = spec(PROMETHEUS)

    assert by_metrics.keys() == FIELDS.keys() - {"advanced"}
    for name in ("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "fallback"):
        assert by_metrics[name] == spec()[name]
    (trigger,) = by_metrics["triggers"]
    # Source: KEDA 2.13 and later, "Prometheus".
    assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold", "ignoreNullValues"}
    assert trigger["metadata"]["threshold"] == modifiers()["target"]


async def test_a_worker_tells_every_figure_of_the_query(server: PrivateServer, prefix: str) -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    query = parser.parse(spec(PROMETHEUS)["triggers"][0]["metadata"]["query"])
    wanted = [
        (part.expr.name, {each.name: each.value for each in part.expr.matchers.matchers})
        for part in (query.lhs, query.rhs)
    ]
    assert [labels["status"] for _, labels in wanted] == ["waiting", "active"]
    (port,) = free_ports(1)
    environment = {"REDIS_URL": server.url, "HEADRACE_PREFIX": prefix, "HEADRACE_HEALTH_PORT": str(port)}
    app = Headrace(server.url, settings={"prefix": prefix})

    @app.task(queue="mail", name="shop.send_mail")
    async def send_mail(to: str) -> None: ...

    async with app:
        await app.queue("mail").pause()
        await send_mail.enqueue_many([(("ann",), {})] * 3)

    with WorkerCommand("shop:app", environment=environment, cwd=DEPLOY / "docker") as command:
        await asyncio.to_thread(command.wait_line, "worker started")
        found = await asyncio.to_thread(scrape, port)
        assert await asyncio.to_thread(command.terminate) == 0

    assert [found.value(name, **labels) for name, labels in wanted] == [3.0, 0.0]
