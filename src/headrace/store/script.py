"""Lua scripts as files: read their headers, join the shared functions, refuse a wrong call, pack calls fast.

The header of a script names its KEYS and ARGV; the loader makes Lua locals of them on the first line, so that line
numbers in the server's error messages stay those of the file. Everything that does not change between calls on one
queue (the hash of the script, the keys) is packed once.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from headrace.resp import pack_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SECTION = re.compile(r"^-- (KEYS|ARGV|USES|Returns|Invariant|Bound)\b ?(.*)$")
_ENTRY = re.compile(r"^\s*([a-z_]+)(?:\[(\d+)\])?  +(\w+)")
#: Lines of a section that are indented this much further explain the entry above them.
CONTINUED: Final = 4
_DETAIL = re.compile(r"^--       ( *)(\S.*)$")


class HeaderError(Exception):
    """Report a script whose header is incomplete: a fault of the package, found by its tests."""


@dataclass(frozen=True, slots=True)
class Name:
    """One entry of KEYS or ARGV: a single value, a fixed number of them, or the rest."""

    name: str
    count: int
    kind: str


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script, ready to be loaded."""

    name: str
    keys: tuple[Name, ...]
    arguments: tuple[Name, ...]
    uses: tuple[str, ...]
    sections: tuple[str, ...]
    source: str
    sha: str

    @property
    def key_names(self) -> tuple[str, ...]:
        """The keys in order; `wait[20]` stands as wait1 to wait20."""
        return tuple(
            f"{key.name}{number}" if key.count > 1 else key.name
            for key in self.keys
            for number in range(1, key.count + 1)
        )

    @property
    def argument_bounds(self) -> tuple[int, float]:
        """The fewest and the most arguments that the header names."""
        return _bounds(self.arguments)

    def check_keys(self, count: int) -> None:
        """Raise HeaderError when the header names another number of keys."""
        fewest, most = _bounds(self.keys)
        if not fewest <= count <= most:
            raise _wrong_number(self.name, "keys", count, fewest, most)


def _bounds(names: Sequence[Name]) -> tuple[int, float]:
    fixed = sum(name.count for name in names if name.kind != "rest")
    return fixed, math.inf if any(name.kind == "rest" for name in names) else fixed


def _wrong_number(script: str, what: str, given: int, fewest: int, most: float) -> HeaderError:
    text = f"Script '{script}' was called with {given} {what}; its header names {fewest}"
    return HeaderError(text + (" or more." if most > fewest else "."))


def parse_script(name: str, text: str, shared: Callable[[str], str]) -> Script:
    """Read a script's header and join it with the functions it uses.

    Args:
        name: File name without its ending.
        text: The whole file.
        shared: Returns the text of a shared file by name.

    Raises:
        HeaderError: The header lacks a section or has a line that cannot be read.
    """
    sections: dict[str, list[str]] = {}
    current = ""
    for line in text.splitlines()[1:]:
        if not line.startswith("--"):
            break
        if found := _SECTION.match(line):
            current = found[1]
            sections[current] = [found[2]] if found[2] else []
        elif current and (detail := _DETAIL.match(line)) and len(detail[1]) < CONTINUED:
            sections[current].append(detail[2])
    missing = [part for part in ("KEYS", "ARGV", "Returns", "Invariant", "Bound") if part not in sections]
    if missing or not text.startswith(f"-- {name}: "):
        raise HeaderError(f"Script '{name}' lacks {', '.join(missing) or 'its name'} in its header.")
    keys, key_locals = _parse_names(name, sections["KEYS"], "KEYS")
    arguments, argument_locals = _parse_names(name, sections["ARGV"], "ARGV")
    uses = tuple(" ".join(sections.get("USES", [])).split())
    joined = " ".join(_on_one_line(shared(use)) for use in uses)
    first, _, rest = text.partition("\n")
    source = f"{key_locals} {argument_locals} {joined} {first}\n{rest}"
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, keys, arguments, uses, tuple(sections), source, sha)


def _parse_names(script: str, lines: Sequence[str], array: str) -> tuple[tuple[Name, ...], str]:
    names: list[Name] = []
    local: list[str] = []
    at = 1
    for line in lines:
        found = _ENTRY.match(line)
        if found is None:
            raise HeaderError(f"Script '{script}' has a line under {array} that cannot be read: {line!r}.")
        name = Name(found[1], int(found[2] or 1), found[3])
        names.append(name)
        # Teaches: a group such as wait[20] becomes the index before its first key, so KEYS[wait + 1] is the first;
        # a rest becomes the index of its first value.
        value = str(at - 1) if name.count > 1 else str(at) if name.kind == "rest" else f"{array}[{at}]"
        local.append(f"local {name.name} = {value}")
        at += name.count
    return tuple(names), " ".join(local)


def _on_one_line(text: str) -> str:
    lines = (line.split(" -- ")[0] for line in text.splitlines() if not line.lstrip().startswith("--"))
    return " ".join(line.strip() for line in lines if line.strip())


@functools.cache
def load_scripts() -> dict[str, Script]:
    """Return all scripts of the package by name.

    Raises:
        HeaderError: A header is incomplete.
    """
    folder = resources.files("headrace.store") / "lua"

    def shared(name: str) -> str:
        return (folder / "shared" / f"{name}.lua").read_text(encoding="utf-8")

    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".lua")), key=lambda entry: entry.name)
    texts = {entry.name.removesuffix(".lua"): entry.read_text(encoding="utf-8") for entry in files}
    return {name: parse_script(name, text, shared) for name, text in texts.items()}


class PreparedScript:
    """One script on the keys of one queue, with everything constant packed in advance."""

    __slots__ = ("_constant", "_count", "_fewest", "_most", "script")

    def __init__(self, script: Script, keys: Sequence[str]) -> None:
        """Pack the constant part; raises HeaderError when the number of keys does not fit the header."""
        script.check_keys(len(keys))
        self.script = script
        self._fewest, self._most = script.argument_bounds
        constant: list[str | bytes | int] = ["EVALSHA", script.sha, len(keys), *keys]
        self._constant = pack_arguments(constant)
        self._count = len(constant)

    def pack(self, arguments: Sequence[str | bytes | int]) -> bytes:
        """Return the bytes of one call; raises HeaderError when the number of arguments does not fit the header."""
        if not self._fewest <= len(arguments) <= self._most:
            raise _wrong_number(self.script.name, "arguments", len(arguments), self._fewest, self._most)
        if not arguments:
            return b"*%d\r\n%b" % (self._count, self._constant)
        return b"*%d\r\n%b%b" % (self._count + len(arguments), self._constant, pack_arguments(arguments))
