"""What the documents show of the code is what the code says now."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from headrace import errors
from headrace.settings import Settings, load_settings
from tests.docs.commands import PARTS, commands
from tests.docs.pages import env_example, errors_reference, headers, key_rows, pages
from tests.docs.tables import fill
from tests.tidy.test_error_tree import drawn
from tests.tidy.tree import ROOT, name_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("path", "written"), pages().items(), ids=[name_of(path) for path in pages()])
def test_the_page_is_current(path: Path, written: str) -> None:
    assert path.read_text() == written, "the page is older than the code; run `make docs`"


def test_a_part_is_filled_and_the_rest_is_kept() -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nz\n"

    filled = fill(page, "x", "new")

    assert filled == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nz\n"
    assert fill(filled, "x", "new") == filled


@pytest.mark.parametrize("page", ["", "<!-- x -->\n", "<!-- /x -->\n", "<!-- x -->\n<!-- /x --><!-- x -->"])
def test_a_page_without_the_part_is_refused(page: str) -> None:
    with pytest.raises(LookupError, match="<!-- x -->"):
        fill(page, "x", "new")


def test_the_sample_of_the_environment_holds_the_defaults() -> None:
    lines = [line.removeprefix("#") for line in env_example().splitlines() if re.match(r"#[A-Z_]+=", line)]

    settings = load_settings(environ=dict(line.split("=", 1) for line in lines), dotenv=None)

    assert settings == Settings()


def test_the_errors_are_all_there() -> None:
    named = set(re.findall(r"^### (\w+):|^\| `(\w+)`", errors_reference(), re.MULTILINE))

    assert {name for pair in named for name in pair if name} | {"HeadraceError"} == drawn(errors.__doc__ or "").keys()


@pytest.mark.parametrize(("part", "name"), PARTS.items(), ids=PARTS)
def test_every_command_is_on_its_page_with_all_that_it_takes(part: str, name: str) -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    shown = re.findall(r"`([^`]+)`", page.partition(f"<!-- {part} -->")[2].partition(f"<!-- /{part} -->")[0])
    words = {word for each in shown for word in re.split(r"[ ,/]+", each)}

    taken = {
        word
        for _, command in commands(name)
        for parameter in command.params
        for word in (parameter.opts if parameter.param_type_name == "option" else (parameter.display_name_raw,))
    }
    assert taken
    assert taken <= words
    assert {called for called, command in commands(name) if not hasattr(command, "commands")} <= {
        each.partition(" [")[0] for each in shown
    }


def _part(key: str) -> str:
    return re.sub(r"^p:(\{q\}:)?", "", key)


def test_every_key_has_its_bound() -> None:
    page = (ROOT / "docs" / "keys.md").read_text()
    section = page.partition("## What bounds them")[2].partition("\n## ")[0]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]

    bounded = Counter(name for cell in firsts for name in re.findall(r"`([^`]+)`", cell))

    assert bounded == Counter(_part(key) for key, _, _ in key_rows())


def test_the_scripts_take_the_keys_for_what_they_are() -> None:
    types = {_part(key).partition(":")[0]: kind for key, kind, _ in key_rows()}

    for name, _, found in headers():
        for line in found["KEYS"]:
            key, kind = line.replace("[20]", "").split()[:2]
            if kind != "rest":
                assert types[key.removeprefix("letter_")] == kind, f"{name}.lua: {line}"
