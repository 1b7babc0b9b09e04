"""The command `headrace`: quick help, one clear line for each error, and exit codes that a script can use."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from headrace import logs
from headrace.cli import apps, commands, output, worker
from headrace.cli.commands import COMMANDS, load_command, make_group
from headrace.cli.output import exit_on_error, format_value, print_facts, print_json, print_table
from headrace.errors import ConnectionLost, HeadraceError, OptionError, SettingError, UsageError

if TYPE_CHECKING:
    from types import ModuleType


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": "", **environment},
    )


def printed(function: object) -> str:
    app = typer.Typer()
    app.command()(function)  # type: ignore[type-var]  # a lambda is a command too
    return CliRunner().invoke(app).stdout


def test_help_names_every_command_without_importing_one() -> None:
    code = (
        "import sys\nfrom headrace.cli import main\nsys.argv = ['headrace', '--help']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(*sorted(name for name in sys.modules if name.startswith('headrace.cli.')), 'rich' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)

    *help_lines, loaded = done.stdout.splitlines()
    assert loaded == "headrace.cli.commands headrace.cli.exits headrace.cli.output False"
    for name, entry in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, entry.help] for line in help_lines)


@pytest.mark.parametrize("module", [apps, commands, logs, output, worker])
def test_examples_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_has_help(name: str) -> None:
    command = load_command(name)

    assert command.name == name
    assert command.help


def test_version_is_that_of_the_package() -> None:
    done = run("--version")

    assert (done.returncode, done.stdout) == (0, f"headrace {version('headrace')}\n")


def test_a_mistyped_command_ends_with_code_2_and_the_nearest_name() -> None:
    done = run("qeues")

    assert done.returncode == 2
    assert "No such command 'qeues'. Did you mean 'queues'?" in done.stderr


def test_a_wrong_setting_ends_with_code_2_and_one_line() -> None:
    done = run("server", QUEUE_CONCURRENCY="fast")

    assert done.returncode == 2
    assert done.stderr.startswith("SettingError: QUEUE_CONCURRENCY='fast': expected a whole number from 1 to 10000.")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(SettingError("a"), 2), (OptionError("b"), 2), (ConnectionLost("c"), 1), (UsageError("d"), 1)],
)
def test_an_error_becomes_one_line_and_an_exit_code(error: HeadraceError, code: int) -> None:
    app = typer.Typer()

    @app.command()
    def command() -> None:
        with exit_on_error():
            raise error

    result = CliRunner().invoke(app)

    assert result.exit_code == code
    assert result.stderr == f"{type(error).__name__}: {error}\n"
    assert result.stdout == ""


def test_the_group_turns_errors_into_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ConnectionLost("no way")

    monkeypatch.setattr("headrace.cli.config_view.load_settings", refuse)

    with pytest.raises(SystemExit) as ended:
        make_group().main(["config", "show"])

    assert ended.value.code == 1


def test_a_table_without_a_terminal_is_aligned_lines() -> None:
    text = printed(lambda: print_table(("queue", "waiting"), [("mail", 12), ("[b]", None)], right=("waiting",)))

    assert text.splitlines() == ["queue  waiting", "mail        12", "[b]          -"]


def test_a_terminal_gets_a_table_with_values_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    text = printed(lambda: print_table(("queue", "waiting"), [("[bold]:bug:", 12)], right=("waiting",)))

    assert "[bold]:bug:" in text
    assert "\x1b[" in text


@pytest.mark.parametrize("width", [40, 55, 200])
def test_a_narrow_terminal_cuts_no_id_and_no_word(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    row = ("8847y0hp77mg000001", "shop.fetch", "ConnectionError: no answer from example.com")

    text = printed(lambda: print_table(("id", "task", "error"), [row]))

    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert all(word in text for word in (*row[:2], *row[2].split()))


def test_facts_are_aligned_and_lines_of_a_value_stay_below_it() -> None:
    text = printed(lambda: print_facts([("id", "j1"), ("error", "a\nb")]))

    assert text.splitlines() == ["id     j1", "error  a", "       b"]


def test_json_is_for_programs() -> None:
    assert printed(lambda: print_json({"a": [1, None]})) == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'


def test_floats_are_short() -> None:
    assert [format_value(value) for value in (0.5, 2.0, 1 / 3, 1e6)] == ["0.5", "2", "0.333", "1000000"]
