"""The command `headrace config show`: every setting with its value, its source and its default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headrace.settings_rows import SettingRow

config = typer.Typer(name="config", help="Look at the settings.", no_args_is_help=True)


@config.callback()
def _group() -> None:
    """Look at the settings."""


@config.command()
def show(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for other programs.")] = False
) -> None:
    """List every setting with its value, where the value came from, and its default.

    Passwords are masked. The exit code is 2 when a setting has a wrong value; the message names it.
    """
    from headrace.cli.output import exit_on_error, print_json
    from headrace.settings import load_settings
    from headrace.settings_rows import describe

    with exit_on_error():
        rows = describe(load_settings())
    if as_json:
        print_json(rows)
    else:
        _print_table(rows)


def _print_table(rows: list[SettingRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Why: a value such as redis://[fe80::1] or a:key:b would be read as markup or as an emoji.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        for row in rows:
            typer.echo(f"{row.name}={_text(row.value, row.unit)}  source {row.source}  default {row.default}")
        return
    table = Table("setting", "value", "source", "default", "allowed", "meaning", box=None, header_style="bold")
    for row in rows:
        style = "dim" if row.source == "default" else ""
        value = _text(row.value, row.unit)
        table.add_row(row.name, value, row.source, _text(row.default), row.bounds, row.text, style=style)
    console.print(table)


def _text(value: str | float | None, unit: str = "") -> str:
    if value is None:
        return "not set"
    return f"{value} {unit}" if unit else str(value)
