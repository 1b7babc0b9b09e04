"""Write what the documents show of the code: tables of commands, settings, errors, keys, scripts and transitions.

    python -m tests.docs.pages          write them (`make docs`)

A page keeps its own text; the code fills the part between two comments: `<!-- settings -->` and `<!-- /settings -->`.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import partial
from typing import TYPE_CHECKING, Final

from headrace import errors, keys
from headrace.settings import Settings
from headrace.settings_rows import describe
from headrace.telemetry.metrics import LABELS, METRICS
from tests.docs import commands, picture, picture_incident, states
from tests.docs.tables import fill, table, write_pages
from tests.tidy.test_lua_headers import read, sections, split
from tests.tidy.tree import ROOT, SOURCE, name_of, tracked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headrace.settings_rows import SettingRow

SCRIPTS: Final = SOURCE / "store" / "lua"


# Settings


def _rows() -> list[SettingRow]:
    return describe(Settings())


def _shown(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _default(row: SettingRow) -> str:
    return "none" if row.default is None else f"`{_shown(row.default)}` {row.unit}".rstrip()


def settings_table() -> str:
    """Every setting: variable, field, default, bounds, when a change takes effect, meaning."""
    rows = [
        [f"`{row.name}`<br>`{row.field}`", _default(row), f"`{row.bounds.replace('|', ' | ')}`", row.change, row.text]
        for row in _rows()
    ]
    return table(["variable, argument", "default", "allowed", "change", "meaning"], rows)


def env_example() -> str:
    """A .env file with every setting, each switched off at its default."""
    lines = ["# Every setting with its default. Copy this file to .env, and take the # off what you change."]
    for row in _rows():
        unit = f", {row.unit}" if row.unit else ""
        lines += ["", f"# {row.text} ({row.bounds}{unit})", f"#{row.name}={_shown(row.default)}"]
    return "\n".join(lines) + "\n"


# Errors

_BRANCH = re.compile(r"^    [├└]── (?P<name>\w+) {2,}(?P<remedy>\S.*?)(?: {2,}\((?P<also>\w+)\))?$")
_LEAF = re.compile(r"^    [│ ]   [├└]── (?P<name>\w+) {2,}(?P<when>\S.*?)(?: *\((?P<also>\w+)\))?$")


def errors_reference() -> str:
    """The tree of errors.py, a heading and a table a branch."""
    parts: list[str] = []
    rows: list[list[str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if branch := _BRANCH.match(line):
            _close(parts, rows)
            also = branch["also"]
            parts.append(f"### {branch['name']}: {branch['remedy']}" + (f"\n\nAlso a `{also}`." if also else ""))
            if attributes := _attributes(branch["name"]):
                parts.append(f"Attributes: {attributes}.")
        elif leaf := _LEAF.match(line):
            also = f"`{leaf['also']}`" if leaf["also"] else ""
            rows.append([f"`{leaf['name']}`", leaf["when"], also, _attributes(leaf["name"])])
    _close(parts, rows)
    return "\n\n".join(parts)


def _close(parts: list[str], rows: list[list[str]]) -> None:
    if rows:
        parts.append(table(["error", "when", "also a", "attributes"], rows))
        rows.clear()


def _attributes(name: str) -> str:
    """Name what an error carries beside its sentence, as its docstring lists it."""
    _, found, listed = inspect.getdoc(getattr(errors, name)).partition("Attributes:\n")  # type: ignore[union-attr]  # all have one
    return ", ".join(f"`{word}`" for word in re.findall(r"^    (\w+):", listed, re.MULTILINE)) if found else ""


# Keys and scripts

_KEY = re.compile(r"^    (?P<key>p:\S+) {2,}(?P<type>\w+) {2,}(?P<meaning>\S.*)$")


def key_rows() -> list[tuple[str, str, str]]:
    """Key, type and meaning of every key, as the docstring of keys.py lists them."""
    found = (_KEY.match(line) for line in (keys.__doc__ or "").splitlines())
    return [(match["key"], match["type"], match["meaning"]) for match in found if match]


def keys_table() -> str:
    """Every key with its type and meaning."""
    return table(["key", "type", "holds"], [(f"`{key}`", kind, meaning) for key, kind, meaning in key_rows()])


def headers() -> Iterator[tuple[str, str, dict[str, list[str]]]]:
    """Yield name, purpose and sections of each script."""
    for name, text in read(SCRIPTS).items():
        header = split(text)[0]
        yield name, header[0].partition(": ")[2], sections(header)


def scripts_table() -> str:
    """Every script: what it does, what always holds, what bounds it."""
    rows = []
    for name, purpose, found in headers():
        link = f"[{name}](../src/headrace/store/lua/{name}.lua)"
        rows.append([link, purpose.rstrip("."), " ".join(found["Invariant"]), " ".join(found["Bound"])])
    return table(["script", "does", "invariant", "bound"], rows)


# Tests and benchmarks


def guarantees_table() -> str:
    """Every test of a guarantee: what it claims, as its docstring says."""
    rows = []
    for path in tracked(".py", "tests/guarantees"):
        if path.name.startswith("test_"):
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            claim = " ".join(text.partition("\n\n")[0].split())
            rows.append([claim, f"[{path.name}](../{name_of(path)})"])
    return table(["claim", "test"], rows)


def benchmarks_table() -> str:
    """Every script in benchmarks/: what it measures, and its command, as its docstring says."""
    rows = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        if command := re.search(r"^    (python benchmarks/.+?)(?: {2,}.*)?$", text, re.MULTILINE):
            purpose = text.splitlines()[0].rstrip(".")
            rows.append([f"[{path.name}](../benchmarks/{path.name})", purpose, f"`{command[1]}`"])
    return table(["script", "does", "command"], rows)


# Metrics


def metrics_table() -> str:
    """Every metric that is exported: type, labels, meaning, and how many series it has at most."""
    rows = [
        [
            f"`{metric.name}`", metric.type, ", ".join(f"`{label}`" for label in metric.all_labels),
            f"{metric.bound:,}", metric.text,
        ]
        for metric in METRICS
    ]  # fmt: skip
    return table(["metric", "type", "labels", "series", "meaning"], rows)


def labels_table() -> str:
    """Every label of the metrics with what bounds it."""
    return table(
        ["label", "values", "at most"], [[f"`{name}`", one.text, str(one.bound)] for name, one in LABELS.items()]
    )


# All of them

PARTS: Final[tuple[tuple[str, str, Callable[[], str]], ...]] = (
    *(("docs/commands.md", part, partial(commands.options_reference, name)) for part, name in commands.PARTS.items()),
    ("docs/settings.md", "settings", settings_table),
    ("docs/errors.md", "errors", errors_reference),
    ("docs/keys.md", "keys", keys_table),
    ("docs/keys.md", "scripts", scripts_table),
    ("docs/guarantees.md", "tests", guarantees_table),
    ("docs/benchmarks.md", "scripts", benchmarks_table),
    ("docs/metrics.md", "labels", labels_table),
    ("docs/metrics.md", "metrics", metrics_table),
    ("docs/state-machine.md", "transitions", states.transitions_table),
)


def pages() -> dict[Path, str]:
    """Return every page that has a written part, as it should be."""
    images = ROOT / "docs" / "images"
    texts = {
        ROOT / ".env.example": env_example(),
        images / "states.svg": picture.draw(),
        images / "incident.svg": picture_incident.draw(),
    }
    for name, part, write in PARTS:
        path = ROOT / name
        texts[path] = fill(texts.get(path) or path.read_text(), part, write())
    return texts


if __name__ == "__main__":
    write_pages(pages())
