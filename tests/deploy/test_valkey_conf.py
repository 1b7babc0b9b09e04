"""`deploy/valkey.conf` with a real server: every line counts, and what a missing one does is what the page says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deploy.parts import complaints, directives, doctor, read, serving, size_bytes
from tests.support.raw import Raw

if TYPE_CHECKING:
    from pathlib import Path


def test_the_doctor_finds_a_server_with_this_file_healthy(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        checks = doctor(url)

    assert complaints(checks) == []


def test_every_line_takes_effect(tmp_path: Path) -> None:
    wanted = directives(read("valkey.conf"))

    with serving(tmp_path) as url, Raw(url) as raw:
        found = {name: raw("CONFIG", "GET", name)[name.encode()].decode() for name in wanted}

    sizes = {"maxmemory", "auto-aof-rewrite-min-size"}
    shown = {name: str(size_bytes(text)) if name in sizes else text.strip('"') for name, text in wanted.items()}
    assert found == shown


@pytest.mark.parametrize(
    ("line", "instead", "check", "grade"),
    [
        ("maxmemory-policy noeviction", "maxmemory-policy allkeys-lru", "eviction policy", "fail"),
        ("appendonly yes", "appendonly no", "persistence", "fail"),
        ("maxclients 10000", "maxclients 120", "maxclients", "partial"),
        ("maxclients 10000", "maxclients 90", "maxclients", "fail"),
    ],
)
def test_the_doctor_says_which_line_is_wrong(tmp_path: Path, line: str, instead: str, check: str, grade: str) -> None:
    text = read("valkey.conf")
    assert line in text

    with serving(tmp_path, conf=text.replace(line, instead)) as url:
        checks = doctor(url)

    assert (checks[check]["grade"], bool(checks[check]["remedy"])) == (grade, True)


def test_a_server_without_enough_open_files_accepts_fewer_clients_and_the_doctor_sees_how_many(tmp_path: Path) -> None:
    with serving(tmp_path, open_files=1_000) as url:
        checks = doctor(url)

    # 32 files are the server's own.
    assert checks["maxclients"]["measured"].startswith("968; ")
    assert "reduced to 968" in (tmp_path / "server.log").read_text()
