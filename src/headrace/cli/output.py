"""What every command prints: tables, JSON, errors. Exit codes are in exits.py.

A terminal gets tables; anything else gets plain lines, one row a line, which other programs can cut. `--json` is for
programs that want more than that.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from headrace.cli.exits import EXIT_FAILED, EXIT_OK, EXIT_USAGE, exit_code
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "EXIT_FAILED",
    "EXIT_OK",
    "EXIT_USAGE",
    "JsonOption",
    "exit_on_error",
    "fail",
    "fail_with",
    "format_value",
    "is_terminal",
    "print_facts",
    "print_json",
    "print_lines",
    "print_table",
]

#: Cells between two columns of a table.
GAP: Final = 2
#: Annotation of the option `--json`: `def show(*, as_json: JsonOption = False)`.
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def is_terminal() -> bool:
    """Tell whether what is printed is read by a person at a terminal, or is to look so (FORCE_COLOR)."""
    return sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table for a terminal; else a line of column names and a line a row, aligned, two spaces between columns.

    Args:
        columns: Heads of the columns.
        rows: One value a column each; None shows as `-`.
        right: Columns aligned to the right, such as numbers.
    """
    texts = [[format_value(value) for value in row] for row in rows]
    if is_terminal():
        _print_rich(columns, texts, right)
        return
    print_lines(columns, texts, right=right)


def print_lines(columns: Sequence[str], texts: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a line of column names and a line a row, aligned, two spaces between columns.

    Args:
        columns: Heads of the columns.
        texts: One text a column each.
        right: Columns aligned to the right, such as numbers.
    """
    lines = [columns, *texts]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line, the values aligned."""
    pairs = [(name, format_value(value)) for name, value in facts]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        # Why: a value of several lines, such as a traceback, stays below its own name.
        typer.echo(f"{name.ljust(width)}  {value.replace(chr(10), chr(10) + ' ' * (width + 2))}")


def print_json(value: object) -> None:
    """Print a value as indented JSON: dataclasses, Structs, dates and what else msgspec can write."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def format_value(value: object) -> str:
    """Write a value for people: None as `-`, yes and no, floats with at most three digits after the point.

    Example:
        >>> [format_value(value) for value in (None, True, 12, 0.1234567, 3.0, "x")]
        ['-', 'yes', '12', '0.123', '3', 'x']
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print one line to the standard error and end the command.

    Args:
        message: What happened and what to do.
        code: Exit code, EXIT_FAILED or EXIT_USAGE.

    Raises:
        typer.Exit: Always.
    """
    typer.echo(message, err=True)
    raise typer.Exit(code)


def fail_with(error: HeadraceError) -> NoReturn:
    """End the command with an error of Headrace: its class and its sentence, no traceback.

    Raises:
        typer.Exit: Always; with EXIT_USAGE when a setting or an argument is to be corrected.
    """
    typer.echo(f"{type(error).__name__}: {error}", err=True)
    raise typer.Exit(exit_code(error)) from error


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn an error of Headrace inside the block into one sentence and an exit code; `headrace` wraps every command."""
    try:
        yield
    except HeadraceError as error:
        fail_with(error)


def _print_rich(columns: Sequence[str], rows: list[list[str]], right: Sequence[str]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    # Why: a value such as [bold] or :key: in a job's argument is data, not markup.
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    room = console.width - GAP * (len(columns) - 1)
    cells = list(zip(columns, *rows, strict=True))
    whole = [max(map(cell_len, column)) for column in cells]
    words = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in cells]
    # Why: an id or a name that is cut cannot be copied. Texts are folded between words; where that is not enough, the
    # terminal folds the lines, and what would be longer than two of its lines is folded within words.
    if sum(words) > room and sum(whole) <= room + console.width:
        print_lines(columns, rows, right=right)
        return
    widths: list[int] | list[None] = share_out(room, words, whole) if sum(words) <= room else [None] * len(columns)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, overflow="fold", justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def share_out(room: int, least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Divide the cells of a line among columns: each gets its least, and then those that want few more come first.

    Example:
        >>> share_out(30, [4, 6, 5], [4, 9, 40])
        [4, 9, 17]
    """
    widths, left = list(least), room - sum(least)
    order = sorted(range(len(widths)), key=lambda at: most[at] - least[at])
    for place, at in enumerate(order):
        more = min(most[at] - least[at], left // (len(order) - place))
        widths[at] += more
        left -= more
    return widths
