"""The image and the compose file: judged by the tools for them, and run as far as that needs no daemon."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.server import find_server
from tests.deploy.parts import (
    DEADLINE,
    DEPLOY,
    STOPPED_AFTER,
    clean_environment,
    complaints,
    directives,
    doctor,
    documents,
    headrace,
    instructions,
    read,
    seconds,
    serving,
    size_bytes,
)  # fmt: skip
from tests.support.cluster import free_ports
from tests.worker.command import WorkerCommand

if TYPE_CHECKING:
    from headrace.server import PrivateServer

IMAGE = "docker/Dockerfile"
COMPOSE = "docker/compose.yaml"


def last(name: str) -> str:
    """Return the arguments of the last instruction of this name."""
    return [text for found, text in instructions(read(IMAGE)) if found == name][-1]


def variables() -> dict[str, str]:
    return dict(word.split("=", 1) for word in last("ENV").split())


def health_command() -> list[str]:
    _, _, command = last("HEALTHCHECK").partition("CMD ")
    return list(json.loads(command))


def service(name: str) -> dict[str, Any]:
    (found,) = documents(COMPOSE)
    return dict(found["services"][name])


# The image


@pytest.mark.skipif(shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None, reason="no hadolint here")
@pytest.mark.parametrize(("add", "code"), [("", 0), ("RUN cd /tmp && sudo true\n", 1)])
def test_the_linter_of_dockerfiles_finds_nothing(tmp_path: Path, add: str, code: int) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(read(IMAGE) + add)

    done = subprocess.run(["hadolint", str(file)], env=clean_environment(), capture_output=True, text=True, check=False)

    assert done.returncode == code, done.stdout


def test_it_runs_as_nobody_special_and_leaves_its_tools_behind() -> None:
    found = instructions(read(IMAGE))

    assert [name for name, _ in found].count("FROM") == 2
    assert last("USER").split(":")[0] not in {"0", "root"}
    assert f"--uid {last('USER').split(':')[0]} " in last_run("useradd")
    assert (last("STOPSIGNAL"), variables()["PATH"].split(":")[0]) == ("SIGTERM", "/opt/venv/bin")


def last_run(word: str) -> str:
    (found,) = [text for name, text in instructions(read(IMAGE)) if name == "RUN" and word in text]
    return found


async def test_its_commands_start_a_worker_tell_of_its_health_and_stop_it(
    server: PrivateServer, prefix: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    command = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
    assert command[:2] == ["headrace", "worker"]
    given = {name: value for name, value in variables().items() if name != "PATH"}
    assert given["HEADRACE_HEALTH_PORT"] == "8081"
    # Why another port: this one may be taken where the tests run.
    given |= {"HEADRACE_HEALTH_PORT": str(port), "REDIS_URL": server.url, "HEADRACE_PREFIX": prefix}
    shutil.copy(DEPLOY / "docker/shop.py", tmp_path)
    probe = [word.replace(":8081/", f":{port}/") for word in health_command()]
    probe[0] = sys.executable

    with WorkerCommand(*command[2:], environment=given, cwd=tmp_path) as worker:
        await asyncio.to_thread(worker.wait_line, "worker started")
        await until_code(probe, 0)
        # A process that does not answer is unhealthy, within the time that the check is given.
        worker.send(signal.SIGSTOP)
        began = time.monotonic()
        assert await asyncio.to_thread(run, probe) != 0
        assert time.monotonic() - began < DEADLINE
        worker.send(signal.SIGCONT)
        await until_code(probe, 0)
        worker.send(getattr(signal, last("STOPSIGNAL")))
        assert await asyncio.to_thread(worker.wait) == 0
    assert run(probe) != 0


def run(command: list[str]) -> int:
    return subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False).returncode


async def until_code(command: list[str], code: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while await asyncio.to_thread(run, command) != code:
        assert time.monotonic() < deadline


def test_what_is_built_is_what_the_image_runs(tmp_path: Path) -> None:
    folder = variables()["PATH"].split(":")[0]
    install = last_run("-m venv")
    code = tmp_path / "shop"
    shutil.copytree(DEPLOY / "docker", code, ignore=shutil.ignore_patterns("__pycache__"))
    program, *rest = last_run("compileall").replace("/srv/shop", str(code)).split()
    assert program == "python"

    subprocess.run([sys.executable, *rest], check=True)

    assert list((code / "__pycache__").glob("shop.*.pyc"))
    assert f"{folder}/pip install --requirement /build/requirements.txt" in install
    (line,) = [line for line in read("docker/requirements.txt").splitlines() if line]
    assert line.startswith("headrace")


def test_secrets_and_environments_stay_out_of_the_image() -> None:
    assert {".env", ".venv", ".git"} <= set(read("docker/.dockerignore").split())


# Compose


@pytest.mark.parametrize(
    ("text", "instead"),
    [("stop_grace_period: 45s", "stop_grace_perod: 45s"), ("service_healthy", "service_happy")],
)
def test_compose_accepts_the_file_and_would_refuse_a_wrong_one(text: str, instead: str) -> None:
    compose = pytest.importorskip("compose_spec", reason="compose-spec is not installed").PyCompose
    file = read(COMPOSE)

    compose.from_yaml(file).validate()

    assert text in file
    with pytest.raises(ValueError, match=r"services\.worker"):
        compose.from_yaml(file.replace(text, instead))


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_reads_it_and_asks_for_the_password() -> None:
    command = ["docker-compose", "-f", str(DEPLOY / COMPOSE), "config", "--quiet"]

    given = subprocess.run(command, env={**os.environ, "VALKEY_PASSWORD": "x"}, capture_output=True, check=False)
    without = subprocess.run(command, capture_output=True, text=True, check=False)

    assert given.returncode == 0, given.stderr
    assert "VALKEY_PASSWORD" in without.stderr


def test_a_worker_gets_longer_to_stop_than_it_takes() -> None:
    worker = service("worker")

    assert seconds(worker["stop_grace_period"]) >= float(worker["environment"]["HEADRACE_GRACE"]) + STOPPED_AFTER + 5
    assert worker["init"] is True


def test_memory_is_bounded_and_that_of_the_server_leaves_room_for_a_rewrite() -> None:
    command = service("valkey")["command"]

    assert size_bytes(service("valkey")["mem_limit"]) >= 2 * size_bytes(command[command.index("--maxmemory") + 1])
    assert service("worker")["mem_limit"] == service("worker")["memswap_limit"]
    clients = int(directives(read("valkey.conf"))["maxclients"])
    assert service("valkey")["ulimits"]["nofile"]["soft"] >= clients + 32


def test_the_server_of_the_file_starts_asks_for_the_password_and_is_healthy(tmp_path: Path) -> None:
    program, file, *options = service("valkey")["command"]
    assert (program, file) == ("valkey-server", "/etc/valkey/valkey.conf")
    assert service("valkey")["volumes"][0].split(":")[:2] == ["../valkey.conf", file]
    at = options.index("--dir")
    del options[at : at + 2]
    options[-1] = "secret"

    with serving(tmp_path, *options) as url:
        path = url.removeprefix("unix://")
        checks = doctor(f"unix://:secret@{path}")
        refused = headrace("doctor", environment={"REDIS_URL": url})
        ping = health_of_the_server(path)

    assert complaints(checks) == []
    assert refused.returncode == 2
    assert ping == 0


def health_of_the_server(path: str) -> int:
    """Run the health check of the server, where there is a client to run it with."""
    client = shutil.which("valkey-cli", path=f"{os.environ['PATH']}{os.pathsep}{find_server().path.parent}")
    if client is None:
        pytest.skip("no valkey-cli here")
    kind, line = service("valkey")["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    line = line.replace("valkey-cli", f"{client} -s {path}")
    return subprocess.run(["sh", "-c", line], env={**os.environ, "REDISCLI_AUTH": "secret"}, check=False).returncode
