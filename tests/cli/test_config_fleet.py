"""`headrace config`: the settings of the fleet are shown, compared, changed and taken back by one command each."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from headrace.cli.config_view import find_others, look
from headrace.fleet.snapshot import TEXT, Snapshot
from headrace.settings import SETTINGS, load_settings
from headrace.settings_fleet import check_values, encode_version
from headrace.settings_profiles import PROFILES
from headrace.settings_rows import describe
from headrace.store.versions import Versions
from tests.cli.command import Command, run_with
from tests.live import working

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace import Headrace


@pytest.fixture
def app(make_app: Callable[..., Headrace]) -> Headrace:
    return make_app()


@pytest.fixture
def command(
    app: Headrace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    return Command(app, capsys, monkeypatch)


def test_a_change_is_stored_with_who_and_why_and_shown_with_its_source(command: Command) -> None:
    done = command("config", "set", "QUEUE_CONCURRENCY=5", "HEADRACE_THREADS=4", "-m", "too slow", "--author", "ann")
    shown = command("config", "show")

    assert done.code == 0
    assert done.out.splitlines()[0] == "version 1 stored by ann: too slow"
    assert [line.split() for line in done.out.splitlines()[2:4]] == [
        ["QUEUE_CONCURRENCY", "100", "5", "live"],
        ["HEADRACE_THREADS", "32", "4", "restart"],
    ]
    assert "no worker runs" in done.out
    assert "QUEUE_CONCURRENCY=5  source fleet  default 100  live" in shown.out.splitlines()
    assert shown.out.splitlines()[-1].startswith("# fleet: version 1, ")
    assert shown.out.rstrip().endswith("by ann: too slow")


def test_a_running_process_that_was_started_with_other_settings_is_named(
    app: Headrace, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look() -> tuple[str, Any]:
        async with working(app, ["mail"]):
            monkeypatch.setenv("QUEUE_CONCURRENCY", "9")
            text = (await asyncio.to_thread(command, "config", "show")).out
            return text, await asyncio.to_thread(lambda: command("config", "show", "--json").json)

    text, rows = run_with(app, look)

    said = f"runs with QUEUE_CONCURRENCY={app.settings.queue_concurrency} (default), which is another value than here"
    assert f"# process {os.getpid()} on {socket.gethostname()} {said}" in text.splitlines()
    (row,) = [row for row in rows if row["name"] == "QUEUE_CONCURRENCY"]
    (other,) = row["running"]
    assert (row["value"], other["pid"], other["source"]) == (9, os.getpid(), "default")


def test_a_value_that_is_too_long_to_be_told_in_full_is_no_other_one() -> None:
    limits = {f"queue-{number}": 50 for number in range(20)}
    rows = describe(load_settings({"queue_limits": limits}, environ={}, dotenv=None))
    (row,) = [row for row in rows if row.name == "HEADRACE_QUEUE_LIMITS"]
    same, other = (
        Snapshot(app="a", host="web", pid=pid, settings={row.name: (value[:TEXT], "environment")})
        for pid, value in enumerate([row.shown, row.shown.replace("queue-0", "queue-x")])
    )

    assert len(row.shown) > TEXT
    assert [one.pid for one in find_others([row], [same, other], {})[row.name]] == [other.pid]


def test_a_setting_is_taken_out_by_an_empty_value_and_the_others_stay(command: Command) -> None:
    command("config", "set", "QUEUE_CONCURRENCY=5", "HEADRACE_THREADS=4")
    done = command("config", "set", "QUEUE_CONCURRENCY=", "--json")

    assert done.json["changed"] == ["QUEUE_CONCURRENCY 5 -> 100"]
    assert (done.json["version"], done.json["missing"]) == (2, {})
    rows = {row["name"]: row for row in command("config", "show", "--json").json}
    assert (rows["QUEUE_CONCURRENCY"]["source"], rows["HEADRACE_THREADS"]["value"]) == ("default", 4)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["QUEUE_CONCURRENCY=fast"], "QUEUE_CONCURRENCY='fast': expected a whole number from 1 to 10000"),
        (["QUEUE_CONCURENCY=5"], "Did you mean QUEUE_CONCURRENCY?"),
        (["HEADRACE_PREFIX=other"], "a setting of each process, which the fleet cannot store"),
        (["QUEUE_CONCURRENCY"], "'QUEUE_CONCURRENCY': expected NAME=VALUE, or NAME= to take a setting out."),
        (["HEADRACE_THREADS=1", "HEADRACE_THREADS=2"], "HEADRACE_THREADS is named twice"),
        (["QUEUE_CONCURRENCY=5", "REDIS_MIN_CONNECTIONS=101"], "expected at most REDIS_MAX_CONNECTIONS=100"),
        (["QUEUE_CONCURRENCY=5", "-m", "n" * 501], "expected at most 500 printable characters"),
    ],
)
def test_a_wrong_setting_ends_with_code_2_and_stores_nothing(command: Command, words: list[str], text: str) -> None:
    done = command("config", "set", *words)

    assert (done.code, text in done.err) == (2, True), done.err
    assert "never stored settings" in command("config", "history").out


def test_a_file_stands_for_all_settings_of_the_fleet(command: Command, tmp_path: Path) -> None:
    (tmp_path / "fleet.env").write_text("# of the shop\nHEADRACE_THREADS=4\nQUEUE_CONCURRENCY='7'\nHEADRACE_GRACE=\n")
    command("config", "set", "HEADRACE_MAX_STALLED=1")

    done = command("config", "apply", "fleet.env", "--json")
    history = command("config", "history", "--json").json

    assert done.code == 0
    assert history[0]["values"] == {"HEADRACE_THREADS": "4", "QUEUE_CONCURRENCY": "7"}
    assert (history[0]["note"], [version["version"] for version in history]) == ("fleet.env", [2, 1])


def test_a_wrong_file_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "fleet.env").write_text("QUEUE_CONCURRENCY=fast\n")

    wrong, missing = command("config", "apply", "fleet.env"), command("config", "apply", "no.env")
    both = command("config", "apply", "fleet.env", "--profile", "small")
    unknown = command("config", "apply", "--profile", "tiny")

    assert (wrong.code, "Correct it in fleet.env" in wrong.err) == (2, True)
    assert (missing.code, "'no.env': no such file" in missing.err) == (2, True)
    assert (both.code, "either a file or --profile NAME" in both.err) == (2, True)
    assert (unknown.code, "expected one of default, small, large, incident" in unknown.err) == (2, True)


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_profile_can_be_applied_and_compared(command: Command, name: str) -> None:
    command("config", "set", "HEADRACE_MAX_STALLED=1")

    compared = command("config", "diff", name, "--json").json
    done = command("config", "apply", "--profile", name, "--json")

    changed = [row["name"] for row in compared]
    assert done.code == 0
    assert [text.split()[0] for text in done.json["changed"]] == changed
    assert set(changed) == {"HEADRACE_MAX_STALLED", *PROFILES[name].values}
    assert check_values(PROFILES[name].values, place="the profile") == dict(PROFILES[name].values)


def test_going_back_again_goes_one_version_further_and_can_be_undone(command: Command) -> None:
    for concurrency in ("5", "6", "7"):
        command("config", "set", f"QUEUE_CONCURRENCY={concurrency}")

    done = [command("config", "rollback", "--json").json["changed"] for _ in range(2)]
    undone = command("config", "rollback", "3", "--json").json

    assert done == [["QUEUE_CONCURRENCY 7 -> 6"], ["QUEUE_CONCURRENCY 6 -> 5"]]
    assert (undone["changed"], undone["version"], undone["note"]) == (
        ["QUEUE_CONCURRENCY 5 -> 7"], 6, "back to version 3",
    )  # fmt: skip


def test_going_back_to_what_is_not_there_is_refused(command: Command) -> None:
    first = command("config", "rollback")
    command("config", "set", "QUEUE_CONCURRENCY=5")
    other = command("config", "rollback", "9")

    assert (first.code, "no version to go back from" in first.err) == (2, True)
    assert (other.code, "version 9 of the fleet's settings is not there: 1 to 1 are kept" in other.err) == (2, True)


def test_versions_files_and_profiles_are_compared_with_each_other(command: Command, tmp_path: Path) -> None:
    (tmp_path / "fleet.env").write_text("QUEUE_CONCURRENCY=9\n")
    command("config", "set", "QUEUE_CONCURRENCY=5")
    command("config", "set", "HEADRACE_THREADS=4")

    def changes(*words: str) -> list[tuple[str, str | None, str | None]]:
        rows = command("config", "diff", *words, "--json").json
        return [(row["name"], row["before"], row["after"]) for row in rows]

    assert changes() == [("HEADRACE_THREADS", None, "4")]
    assert changes("1") == [("HEADRACE_THREADS", None, "4")]
    assert changes("0", "1") == [("QUEUE_CONCURRENCY", None, "5")]
    assert changes("fleet.env") == [("QUEUE_CONCURRENCY", "9", "5"), ("HEADRACE_THREADS", None, "4")]
    assert command("config", "diff", "2", "2").out == "No difference.\n"
    assert command("config", "diff", "nothing").code == 2


def test_the_history_says_when_who_why_and_what(command: Command) -> None:
    command("config", "set", "QUEUE_CONCURRENCY=5", "--author", "ann", "-m", "first")
    command("config", "rollback", "--author", "bob")

    lines = [line.split("  ") for line in command("config", "history").out.splitlines()]
    latest, first = ([cell.strip() for cell in line if cell.strip()] for line in lines[1:])

    assert (latest[0], latest[2:]) == ("2", ["bob", "back to version 0", "QUEUE_CONCURRENCY 5 -> 100"])
    assert (first[0], first[2:]) == ("1", ["ann", "first", "QUEUE_CONCURRENCY 100 -> 5"])


def test_a_bad_setting_of_the_fleet_is_shown_as_such(command: Command, app: Headrace) -> None:
    async def spoil() -> None:
        bad = encode_version({"QUEUE_CONCURRENCY": "0"}, "x", "")
        await Versions(app.store).write(app.control, 0, bad)

    run_with(app, spoil)

    shown = command("config", "show")
    mended = command("config", "set", "QUEUE_CONCURRENCY=5")

    assert shown.code == 2
    assert "QUEUE_CONCURRENCY='0': expected a whole number" in shown.err
    assert "QUEUE_CONCURRENCY=100  source default  default 100  live" in shown.out
    assert mended.code == 0


def test_without_a_server_the_settings_here_are_shown_and_none_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("HEADRACE_DATA_DIR", raising=False)

    here = look(None, local=False)
    (tmp_path / ".headrace").mkdir()
    stopped = look(None, local=False)
    (tmp_path / ".headrace").rmdir()
    away = look("unix:///nonexistent/server.sock", local=False)

    assert (here.version.number, here.trouble, list(tmp_path.iterdir())) == (0, "", [])
    assert "No server runs here" in stopped.trouble
    assert "The settings of the fleet were not read" in away.trouble
    assert len(away.rows) == len(SETTINGS)


def test_two_writers_at_once_do_not_overwrite_each_other(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command("config", "set", "QUEUE_CONCURRENCY=5")

    async def overtaken(self: Versions, client: object, expected: int, body: bytes) -> tuple[int, int]:
        monkeypatch.setattr(Versions, "write", write)
        await write(self, client, expected, encode_version({"HEADRACE_THREADS": "4"}, "bob", ""))  # type: ignore[arg-type]  # the client of the command
        return await write(self, client, expected, body)  # type: ignore[arg-type]  # as above

    write = Versions.write
    monkeypatch.setattr(Versions, "write", overtaken)

    done = command("config", "set", "QUEUE_CONCURRENCY=6")

    assert (done.code, "at version 2, written by bob, no longer at version 1" in done.err) == (2, True)
    assert command("config", "history", "--json").json[0]["values"] == {"HEADRACE_THREADS": "4"}
