"""The command `headrace doctor`: full on a healthy set-up, and the reason and remedy of each thing that is not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace.server import start_private_server
from tests.cli.command import Command, Done
from tests.live import fresh_app
from tests.support.raw import Raw
from tests.support.sick import send
from tests.support.slow_proxy import SlowProxy
from tests.verify.shifted import ShiftedClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headrace.server import PrivateServer
    from tests.support.stalls import Stalls

    Doctor = Callable[[str], Done]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    with start_private_server(tmp_path / "own") as running:
        yield running


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    return lambda url: Command(fresh_app(url), capsys, monkeypatch)("doctor", "--json")


def check(done: Done, name: str) -> dict[str, Any]:
    """Return one check; whatever did not pass must say what to do."""
    found: dict[str, dict[str, Any]] = {each["name"]: each for each in done.json["checks"]}
    assert all(each["remedy"] for each in found.values() if each["grade"] != "pass")
    assert all(each["threshold"] and each["source"] for each in found.values())
    return found[name]


def test_a_healthy_set_up_passes_every_check_within_three_seconds_and_is_left_as_it_was(
    doctor: Doctor, own_server: PrivateServer, stalls: Stalls
) -> None:
    began = time.monotonic()

    done = doctor(own_server.url)

    assert stalls.lasted(began) < 3.0
    assert (done.code, done.json["verdict"]) == (0, "full")
    assert {each["name"] for each in done.json["checks"] if each["grade"] != "pass"} == {"memory of running processes"}
    assert check(done, "memory of running processes")["grade"] == "skipped"
    with Raw(own_server.url) as raw:
        assert raw.keys("") == []


def test_the_table_ends_with_what_to_do_and_the_verdict(
    own_server: PrivateServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(own_server.url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    done = Command(fresh_app(own_server.url), capsys, monkeypatch)("doctor")

    assert done.code == 1
    assert done.out.endswith("eviction policy  Set maxmemory-policy noeviction.\n\nVerdict: partial\n")


def test_an_eviction_policy_that_deletes_jobs_fails(doctor: Doctor, own_server: PrivateServer) -> None:
    send(own_server.url, "CONFIG", "SET", "maxmemory", "100mb")
    send(own_server.url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    done = doctor(own_server.url)

    found = check(done, "eviction policy")
    assert (done.code, found["grade"]) == (2, "fail")
    assert found["measured"].startswith("allkeys-lru, maxmemory 100.0 MB")
    assert found["remedy"] == "Set maxmemory-policy noeviction."


def test_a_server_without_its_append_only_file_fails(doctor: Doctor, tmp_path: Path) -> None:
    with start_private_server(tmp_path / "bare", extra=("--appendonly", "no", "--save", "")) as bare:
        done = doctor(bare.url)

    found = check(done, "persistence")
    assert (done.code, found["grade"]) == (2, "fail")
    assert "appendonly yes" in found["remedy"]


def test_a_server_that_accepts_too_few_clients_fails(doctor: Doctor, tmp_path: Path) -> None:
    with start_private_server(tmp_path / "tiny", extra=("--maxclients", "40")) as tiny:
        done = doctor(tiny.url)

    found = check(done, "maxclients")
    assert (done.code, found["grade"]) == (2, "fail")
    assert found["measured"].startswith("40; the fleet of 1 may open 100 connections, and needs ")
    assert "raise maxclients" in found["remedy"]


def test_a_misspelt_setting_fails_with_the_name_that_was_meant(
    doctor: Doctor, own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_MAX_CONECTIONS", "300")

    done = doctor(own_server.url)

    found = check(done, "effective settings")
    assert (done.code, found["grade"]) == (2, "fail")
    assert found["remedy"] == "Rename REDIS_MAX_CONECTIONS to REDIS_MAX_CONNECTIONS."


@pytest.mark.parametrize(("seconds", "code", "grade"), [(10, 1, "partial"), (90, 2, "fail")])
def test_a_clock_that_stands_wrong_is_partial_and_fails_by_more_than_a_minute(
    doctor: Doctor, own_server: PrivateServer, tmp_path: Path, seconds: int, code: int, grade: str
) -> None:
    with ShiftedClock(tmp_path, own_server.url, seconds) as way:
        done = doctor(way.url)

        assert way.shifted
    found = check(done, "clock skew")
    assert (done.code, found["grade"]) == (code, grade)
    assert found["measured"].startswith((f"the server is {seconds}.", f"the server is {seconds - 1}."))
    assert "NTP" in found["remedy"]


def test_a_slow_way_to_the_server_fails(doctor: Doctor, own_server: PrivateServer, tmp_path: Path) -> None:
    with SlowProxy(tmp_path, own_server.url, 0.12) as way:
        done = doctor(way.url)

        assert way.delayed
    found = check(done, "latency at rest")
    assert (done.code, found["grade"]) == (2, "fail")
    assert "the way to the server" in found["remedy"]


def test_a_server_that_is_away_fails_and_says_where_it_was_looked_for(
    doctor: Doctor, own_server: PrivateServer
) -> None:
    own_server.stop()

    done = doctor(own_server.url)

    found = check(done, "server")
    assert (done.code, found["grade"]) == (2, "fail")
    assert own_server.url.removeprefix("unix://") in found["measured"]
