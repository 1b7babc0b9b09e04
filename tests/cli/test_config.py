"""`headrace config show`: complete, readable by programs, and without secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from headrace.cli.config import config
from headrace.settings import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)


@pytest.mark.usefixtures("_clean")
def test_json_lists_every_setting_with_value_source_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_CONCURRENCY", "7")

    result = CliRunner().invoke(config, ["show", "--json"])

    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == [setting.variable for setting in SETTINGS]
    found = rows["QUEUE_CONCURRENCY"]
    assert (found["value"], found["source"], found["default"]) == (7, "environment", 100)


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_password_is_masked(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://app:s3cret@host:6379/0")

    result = CliRunner().invoke(config, ["show", "--local", *options])

    assert "redis://app:***@host:6379/0" in result.stdout
    assert "s3cret" not in result.output


@pytest.mark.usefixtures("_clean")
def test_a_line_without_a_terminal_holds_one_setting() -> None:
    result = CliRunner().invoke(config, ["show"])

    assert "QUEUE_STALLED_INTERVAL=30000 ms  source default  default 30000  live" in result.stdout.splitlines()
    assert len(result.stdout.splitlines()) == len(SETTINGS)


@pytest.mark.usefixtures("_clean")
def test_a_narrow_terminal_shows_every_name_whole() -> None:
    result = CliRunner().invoke(config, ["show", "--local"], env={"FORCE_COLOR": "1", "COLUMNS": "80"})

    assert all(setting.variable in result.stdout for setting in SETTINGS)
    assert "\N{HORIZONTAL ELLIPSIS}" not in result.stdout
    assert "140 columns wide, or with --json" in result.stdout


@pytest.mark.usefixtures("_clean")
def test_a_wrong_setting_ends_with_code_2_and_its_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("QUEUE_CONCURRENCY=fast\n")

    result = CliRunner().invoke(config, ["show"])

    assert result.exit_code == 2
    assert "QUEUE_CONCURRENCY='fast': expected a whole number from 1 to 10000" in result.stderr
    assert "Correct it in .env" in result.stderr


@pytest.mark.usefixtures("_clean")
def test_a_terminal_gets_a_table_with_values_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://[fe80::1]:6379/0")

    result = CliRunner().invoke(config, ["show", "--local"], env={"FORCE_COLOR": "1", "COLUMNS": "200"})

    assert result.exit_code == 0
    assert "redis://[fe80::1]:6379/0" in result.stdout
    assert "meaning" in result.stdout
    assert "Slots of one worker process" in result.stdout
