"""The objects of Kubernetes: judged by its schemas, and held against what a worker and a server really do."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from headrace.settings import VARIABLES, load_settings
from headrace.sizing.demand import Demand, smallest_maximum
from tests.deploy.parts import (
    DEADLINE,
    DEPLOY,
    STOPPED_AFTER,
    clean_environment,
    complaints,
    directives,
    doctor,
    document,
    documents,
    instructions,
    read,
    serving,
    size_bytes,
)  # fmt: skip
from tests.health.test_probes_of_workers import until_code
from tests.support.cluster import free_ports
from tests.worker.command import WorkerCommand

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.server import PrivateServer

WORKER = "kubernetes/worker.yaml"
VALKEY = "kubernetes/valkey.yaml"
#: The oldest and the newest whose schemas are looked into.
VERSIONS = ["1.30.0", "1.34.0"]


def pod(name: str = WORKER, kind: str = "Deployment") -> dict[str, Any]:
    return dict(document(name, kind)["spec"]["template"]["spec"])


def container(name: str = WORKER, kind: str = "Deployment") -> dict[str, Any]:
    (found,) = pod(name, kind)["containers"]
    return dict(found)


def config() -> dict[str, str]:
    return dict(document(WORKER, "ConfigMap")["data"])


# What it says


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [WORKER, VALKEY])
def test_the_schemas_of_kubernetes_accept_every_object(name: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

    for each in documents(name):
        validate.validate(each, version, strict=True)


def test_a_misspelt_field_would_be_refused() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    wrong = document(WORKER, "Deployment")
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 45

    with pytest.raises(validate.ValidationError, match="terminationGracePeriodSecond"):
        validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_all_of_them_at_once() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, check=True
    )

    built = {(each["kind"], each["metadata"]["name"]) for each in yaml.safe_load_all(done.stdout)}
    assert built == {
        (each["kind"], each["metadata"]["name"]) for name in (WORKER, VALKEY) for each in documents(name)
    }  # fmt: skip


def test_labels_select_the_pods_that_they_are_meant_for() -> None:
    for name, kind in ((WORKER, "Deployment"), (VALKEY, "StatefulSet")):
        spec = document(name, kind)["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    budget = document(WORKER, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget == document(WORKER, "Deployment")["spec"]["selector"]["matchLabels"]
    labels = document(VALKEY, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert document(VALKEY, "Service")["spec"]["selector"].items() <= labels.items()


def test_settings_are_settings_within_their_bounds() -> None:
    settings = load_settings(environ=config(), dotenv=None)

    assert config().keys() <= VARIABLES.keys()
    need = smallest_maximum(Demand(workers=1, slots=settings.queue_concurrency, borrowed=0))
    assert isinstance(settings.redis_max_connections, int)
    assert settings.redis_max_connections >= need


def test_the_address_of_the_server_is_that_of_the_service() -> None:
    (url,) = [each["value"] for each in container()["env"] if each["name"] == "REDIS_URL"]
    service = document(VALKEY, "Service")

    assert f"@{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/" in url


# What it relies on


def test_a_pod_gets_longer_to_stop_than_it_takes() -> None:
    assert pod()["terminationGracePeriodSeconds"] >= float(config()["HEADRACE_GRACE"]) + STOPPED_AFTER + 5


def test_a_blocked_loop_has_a_minute_before_its_pod_is_restarted() -> None:
    probe = container()["livenessProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] == 60
    start = container()["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] == 60


async def test_every_probe_is_answered_by_the_container_that_it_is_for(server: PrivateServer, prefix: str) -> None:
    (port,) = free_ports(1)
    assert {each["name"]: str(each["containerPort"]) for each in container()["ports"]} == {
        "health": config()["HEADRACE_HEALTH_PORT"]
    }
    given = config() | {"HEADRACE_HEALTH_PORT": str(port), "REDIS_URL": server.url, "HEADRACE_PREFIX": prefix}
    # Why: only addresses of this machine alone are listened on in tests.
    assert given.pop("HEADRACE_HEALTH_HOST") == "0.0.0.0"
    probes = [container()[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]

    with WorkerCommand(*container()["args"], environment=given, cwd=DEPLOY / "docker") as command:
        for probe in probes:
            assert probe["port"] == "health"
            await until_code(port, probe["path"], 200)
        assert await asyncio.to_thread(command.terminate) == 0


def test_it_runs_as_the_user_of_the_image_and_cannot_write_but_to_tmp() -> None:
    (user,) = [text for name, text in instructions(read("docker/Dockerfile")) if name == "USER"]

    assert f"{pod()['securityContext']['runAsUser']}:{pod()['securityContext']['runAsGroup']}" == user
    for each in (container(), container(VALKEY, "StatefulSet")):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


#: What a shell does to see the whole file system read-only.
READ_ONLY = "mount --make-rprivate / && mount -o remount,ro,bind / && ! touch /written"


def may_have_its_own_mounts() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-m", "sh", "-c", READ_ONLY], capture_output=True, timeout=DEADLINE, check=False)
    return tried.returncode == 0


async def test_a_worker_runs_where_nothing_can_be_written(server: PrivateServer, prefix: str) -> None:
    if not await asyncio.to_thread(may_have_its_own_mounts):
        pytest.skip("this user may not have mounts of its own")
    (port,) = free_ports(1)
    given = clean_environment(REDIS_URL=server.url, HEADRACE_PREFIX=prefix, HEADRACE_HEALTH_PORT=str(port))
    command = ["unshare", "-m", "sh", "-c", f'{READ_ONLY}; exec "$@"', "sh", "headrace", "worker", *container()["args"]]

    quiet = subprocess.DEVNULL
    worker = subprocess.Popen(command, env=given, cwd=DEPLOY / "docker", stdout=quiet, stderr=quiet)  # noqa: ASYNC220 - it returns at once
    try:
        await until_code(port, "/readyz", 200)
        worker.terminate()
        assert await asyncio.to_thread(worker.wait, DEADLINE) == 0
    finally:
        worker.kill()
        worker.wait()


# The server


def test_the_server_has_the_file_of_this_repository_and_twice_its_memory() -> None:
    text = document(VALKEY, "ConfigMap")["data"]["valkey.conf"]

    assert text == read("valkey.conf")
    limit = container(VALKEY, "StatefulSet")["resources"]["limits"]["memory"]
    assert size_bytes(limit) >= 2 * size_bytes(directives(text)["maxmemory"])


def test_the_server_starts_as_the_pod_says_and_is_healthy(tmp_path: Path) -> None:
    program, file, *options = container(VALKEY, "StatefulSet")["command"]
    mounts = {each["mountPath"] for each in container(VALKEY, "StatefulSet")["volumeMounts"]}
    assert (program, file) == ("valkey-server", "/etc/valkey/valkey.conf")
    assert options[:2] == ["--dir", "/data"]
    assert mounts == {"/data", "/etc/valkey"}
    options = [re.sub(r"^\$\(VALKEY_PASSWORD\)$", "secret", word) for word in options[2:]]

    with serving(tmp_path, *options, conf=document(VALKEY, "ConfigMap")["data"]["valkey.conf"]) as url:
        checks = doctor(f"unix://:secret@{url.removeprefix('unix://')}")

    assert complaints(checks) == []
