"""Every Lua script has a complete header, as the loader and the reader need it, and every shared function is used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.tidy.tree import SOURCE

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = SOURCE / "store" / "lua"
SECTIONS = ["KEYS", "ARGV", "USES", "Returns", "Invariant", "Bound"]
OPTIONAL = {"USES"}
TYPES = {
    "KEYS": {"string", "hash", "list", "set", "zset", "stream", "rest"},
    "ARGV": {"text", "int", "float", "bytes", "rest"},
}
FIRST = re.compile(r"^-- (?P<name>\w+): \S.*$")
SECTION = re.compile(r"^-- (?P<name>[A-Z]\w+)(?:$|  +(?P<text>\S.*)$)")
CONTINUED = re.compile(r"^-- {3,}\S")
ENTRY = re.compile(r"^(?P<name>[a-z][a-z0-9_]*)(?:\[\d+\])? +(?P<type>\w+)(?: +(?P<meaning>\S.*))?$")


def split(text: str) -> tuple[list[str], str]:
    """Part the comment on top from the code."""
    lines = text.splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return lines[:end], "\n".join(lines[end:])


def sections(header: list[str]) -> dict[str, list[str]]:
    """Read the sections of a header: each with its lines; a line that goes on is joined to the one before."""
    found: dict[str, list[str]] = {}
    column = 0
    lines: list[str] = []
    for line in header[1:]:
        if match := SECTION.match(line):
            column = match.start("text")
            lines = found.setdefault(match["name"], [])
            lines += [match["text"]] if match["text"] else []
        elif lines and CONTINUED.match(line):
            if len(line) - len(line[2:].lstrip()) == column:
                lines.append(line[column:])
            else:
                lines[-1] += " " + line[2:].strip()
    return found


def entry_problems(section: str, lines: list[str], code: str) -> list[str]:
    found = []
    for line in lines:
        entry = ENTRY.match(line)
        if not entry or entry["type"] not in TYPES[section]:
            found.append(f"{section} {line!r}: write `name  type  meaning`; a type is one of {sorted(TYPES[section])}")
        elif not entry["meaning"] and entry["type"] != "text":
            found.append(f"{section} {entry['name']}: says nothing after the type: its content, or its bounds")
        elif not re.search(rf"\b{entry['name']}\b", code):
            found.append(f"{section} {entry['name']}: never used")
    return found


def problems(name: str, text: str, shared: set[str]) -> list[str]:
    header, code = split(text)
    found = []
    first = FIRST.match(header[0]) if header else None
    if not first or first["name"] != name:
        found.append(f"the first line must read `-- {name}: what it does`")
    read = sections(header)
    if order := [section for section in SECTIONS if section in read or section not in OPTIONAL]:
        found += [f"{section}: missing" for section in order if section not in read]
        if list(read) != [section for section in order if section in read]:
            found.append(f"the sections stand as {list(read)}; they must be {order}")
    found += [f"{section}: empty" for section in ("Returns", "Invariant", "Bound") if read.get(section) == []]
    for section in TYPES:
        found += entry_problems(section, read.get(section, []), code)
    found += [
        f"USES {used}: no such file in shared/" for line in read.get("USES", []) for used in set(line.split()) - shared
    ]
    if number := re.search(r"\b(?:KEYS|ARGV)\[\d+\]", code):
        found.append(f"{number.group()}: use the name that the header gives it")
    return [f"{name}.lua: {line}" for line in found]


def shared_problems(scripts: dict[str, str], shared: dict[str, str]) -> list[str]:
    used = {
        word for text in scripts.values() for line in sections(split(text)[0]).get("USES", []) for word in line.split()
    }
    found = [f"shared/{name}.lua: no script uses it" for name in sorted(shared.keys() - used)]
    for name, text in shared.items():
        first = FIRST.match(text.splitlines()[0]) if text else None
        if not first or first["name"] != name:
            found.append(f"shared/{name}.lua: the first line must read `-- {name}: what it does`")
    return found


def read(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.lua"))}


@pytest.mark.skipif(not FOLDER.exists(), reason="there are no scripts yet")
def test_every_script_has_a_complete_header() -> None:
    shared = set(read(FOLDER / "shared"))

    found = [line for name, text in read(FOLDER).items() for line in problems(name, text, shared)]

    assert not found, "\n".join(found)


@pytest.mark.skipif(not FOLDER.exists(), reason="there are no scripts yet")
def test_every_shared_function_is_used() -> None:
    found = shared_problems(read(FOLDER), read(FOLDER / "shared"))

    assert not found, "\n".join(found)


SCRIPT = """\
-- renew: extend the lease of one worker.
-- KEYS  leases     zset  worker id -> deadline, ms
--       jobs[20]   list  ids by priority
-- ARGV  worker_id  text
--       lease_ms   int   1000..600000,
--                        whole milliseconds
-- USES  now
-- Returns    deadline_ms, or -1
--            when it had run out
-- Invariant  a deadline only grows
-- Bound      O(log workers)
return redis.call('ZADD', leases, lease_ms + now_ms(), worker_id, KEYS[jobs + 1])
"""


def test_a_complete_script_passes() -> None:
    assert problems("renew", SCRIPT, {"now"}) == []
    assert sections(split(SCRIPT)[0])["ARGV"] == [
        "worker_id  text",
        "lease_ms   int   1000..600000, whole milliseconds",
    ]
    assert shared_problems({"renew": SCRIPT}, {"now": "-- now: the time\n"}) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("-- renew: ", "-- extend: ", "the first line must read `-- renew: "),
        ("-- KEYS  leases     zset  worker id -> deadline, ms\n--     ", "-- X  ", "KEYS: missing"),
        ("-- Returns    ", "-- Gives    ", "Returns: missing"),
        ("-- Invariant  a deadline only grows\n", "", "Invariant: missing"),
        ("-- Bound      O(log workers)\n", "", "Bound: missing"),
        ("-- Bound      O(log workers)", "-- Bound", "Bound: empty"),
        ("-- USES  now\n", "", "the sections stand as"),
        ("zset", "map", "KEYS 'leases     map  worker id -> deadline, ms': write"),
        ("  int   1000..600000,\n--                        whole milliseconds", "  int", "ARGV lease_ms: says nothing"),
        ("lease_ms + ", "", "ARGV lease_ms: never used"),
        ("worker_id, KEYS[jobs + 1]", "worker_id, KEYS[2]", "KEYS[2]: use the name"),
        ("-- USES  now", "-- USES  now trim", "USES trim: no such file"),
    ],
)
def test_an_incomplete_script_is_found(old: str, new: str, complaint: str) -> None:
    assert old in SCRIPT
    text = SCRIPT.replace(old, new)
    if complaint == "the sections stand as":
        text = text.replace("-- Bound ", "-- USES  now\n-- Bound ")

    assert complaint in "\n".join(problems("renew", text, {"now"}))


def test_a_shared_function_that_nobody_uses_is_found() -> None:
    shared = {"now": "-- now: the time\n", "trim": "-- drop: old jobs\n"}

    assert shared_problems({"renew": SCRIPT}, shared) == [
        "shared/trim.lua: no script uses it",
        "shared/trim.lua: the first line must read `-- trim: what it does`",
    ]
