"""Write the reference of the commands: every option and argument of each, as its `--help` says it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from typer._click import Context

from headrace.cli.commands import COMMANDS, load_command, make_group
from tests.docs.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The command itself, with what it takes in front of the name of one.
WHOLE: Final = "headrace"

_FACTS = re.compile(r"  \[([^\]]*)\]")
_RANGE = re.compile(r"([\d.]+)<=x<=([\d.]+)")
_LOWEST = re.compile(r"x>=([\d.]+)")


def commands(name: str) -> Iterator[tuple[str, Any]]:
    """Yield a command of the table and those below it, each with the words that call it."""
    if name == WHOLE:
        yield WHOLE, make_group()
    else:
        yield from _below(f"{WHOLE} {name}", load_command(name))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _below(f"{words} {name}", below)


def options_reference(name: str) -> str:
    """Every option of a command and of those below it, a heading for each of these.

    Args:
        name: One of `COMMANDS`, or `WHOLE`.
    """
    parts: list[str] = []
    for words, command in commands(name):
        rows = list(_rows(words, command))
        is_group = hasattr(command, "commands")
        if is_group and not rows:
            continue
        if words.count(" ") > 1:
            parts.append(f"### {words}")
            parts.append(" ".join(command.help.partition("\n\n")[0].split()))
        parts.append(f"`{words} {_usage(command)}`")
        if rows:
            parts.append(table(["option", "meaning", "default, allowed"], rows))
    return "\n\n".join(parts)


def _usage(command: Any) -> str:
    if hasattr(command, "commands"):
        return "[OPTIONS] [COMMAND] ..."
    with Context(command) as context:
        pieces = command.collect_usage_pieces(context)
    # An argument stands in braces when it is required, and twice in brackets when it is not.
    return " ".join(re.sub(r"^\{(.*)\}(\.\.\.)?$|^\[(\[.*\])\]$", r"\1\3", piece) for piece in pieces)


def _rows(words: str, command: Any) -> Iterator[list[str]]:
    with Context(command, info_name=words) as context:
        records = [parameter.get_help_record(context) for parameter in command.params]
    for names, text in filter(None, records):
        facts = [fact for found in _FACTS.findall(text) for fact in found.split("; ")]
        yield [f"`{names}`", _FACTS.sub("", text), ", ".join(_fact(fact) for fact in facts)]


def _fact(fact: str) -> str:
    if found := _RANGE.fullmatch(fact):
        return f"{found[1]} to {found[2]}"
    if found := _LOWEST.fullmatch(fact):
        return f"{found[1]} or more"
    default = fact.removeprefix("default: ")
    return default if default == fact or " " in default else f"`{default}`"


#: Parts of docs/commands.md: what stands in the comments around each, and what it is about.
PARTS: Final = {f"options-{name}": name for name in (WHOLE, *COMMANDS)}
