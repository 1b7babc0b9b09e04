"""The command `headrace health`: what it prints, and its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.server import start_private_server
from tests.cli.command import Command
from tests.live import fresh_app
from tests.support.sick import send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    with start_private_server(tmp_path / "own") as running:
        yield running


@pytest.fixture
def command(own_server: PrivateServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(fresh_app(own_server.url), capsys, monkeypatch)


def test_a_healthy_server_gives_0_and_every_check(command: Command) -> None:
    done = command("health")

    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[0] == "status   healthy"
    assert lines[2].startswith("latency  ")
    assert [line.split("  ")[0] for line in lines[5:]] == [
        *("eviction policy", "persistence", "replication", "clients", "memory", "slow log", "version", "clock skew"),
        "blocked clients",
    ]


def test_a_server_at_risk_gives_1_with_reason_and_remedy(command: Command, own_server: PrivateServer) -> None:
    send(own_server.url, "CONFIG", "SET", "maxmemory", "1gb")
    send(own_server.url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    done = command("health")

    assert done.code == 1
    assert "reason   eviction policy: allkeys-lru, maxmemory 1024.0 MB" in done.out
    assert "remedy   Set maxmemory-policy noeviction." in done.out


def test_a_server_that_is_away_gives_2_as_json_too(command: Command, own_server: PrivateServer) -> None:
    own_server.stop()

    done = command("health", "--json")

    assert done.code == 2
    assert (done.json["status"], done.json["redis"], done.json["checks"]) == ("unhealthy", "unhealthy", [])
    assert done.json["reasons"]
    assert done.json["remedies"]


def test_json_has_the_figures(command: Command) -> None:
    found = command("health", "--json").json

    assert {"status", "reasons", "remedies", "server", "redis", "latency", "loop", "loop_lag", "checks", "pool"} <= set(
        found
    )
    assert 0 < found["latency"]["last"] < 1
    assert {"name", "status", "measured", "threshold", "meaning", "remedy"} == set(found["checks"][0])
