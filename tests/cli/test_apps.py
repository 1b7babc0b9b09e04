"""`module:attribute` names an app, or the error says what was meant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from headrace import Headrace
from headrace.cli.apps import load_app
from headrace.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOP = """
from headrace import Headrace

app = Headrace()
other = 1

class holder:
    inner = app
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hr_shop.py").write_text(SHOP)
    (tmp_path / "hr_pack").mkdir()
    (tmp_path / "hr_pack" / "__init__.py").write_text("")
    (tmp_path / "hr_pack" / "jobs.py").write_text(SHOP)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("hr_"):
            del sys.modules[name]


def refusal(place: str) -> str:
    with pytest.raises(OptionError) as caught:
        load_app(place)
    return str(caught.value)


@pytest.mark.parametrize("place", ["hr_shop:app", "hr_pack.jobs:app", "hr_shop:holder.inner"])
def test_an_app_is_found_from_the_current_folder(place: str) -> None:
    assert isinstance(load_app(place), Headrace)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("hr_shop", "'hr_shop': expected module:attribute, such as hr_shop:app."),
        ("hr_pack/jobs.py", "expected module:attribute, such as hr_pack.jobs:app."),
        (":app", "':app': expected module:attribute, such as shop.jobs:app."),
        ("hr_shop:", "'hr_shop:': expected module:attribute, such as hr_shop:app."),
        ("./hr_pack/jobs.py:app", "'./hr_pack/jobs.py' is no name of a module. Write hr_pack.jobs:app."),
        ("hr_shop.py:app", "'hr_shop.py:app': 'hr_shop.py' is no name of a module. Write hr_shop:app."),
        ("hr_shp:app", "there is no module 'hr_shp' in {folder} or on sys.path. Did you mean 'hr_shop'?"),
        (
            "hr_pack.job:app",
            "there is no module 'hr_pack.job' in {folder} or on sys.path. Did you mean 'hr_pack.jobs'?",
        ),
        ("hr_pac.jobs:app", "there is no module 'hr_pac' in {folder} or on sys.path. Did you mean 'hr_pack'?"),
        ("zzz:app", "there is no module 'zzz' in {folder} or on sys.path. Run the command in the folder that holds it"),
        ("hr_shop:ap", "'hr_shop:ap': module 'hr_shop' has no 'ap'. Did you mean hr_shop:app?"),
        ("hr_shop:holder.outer", "module 'hr_shop' has no 'outer'. Did you mean hr_shop:app?"),
        ("hr_pack:app", "module 'hr_pack' has no 'app'. Write `app = Headrace()` there, or name the module that does."),
        (
            "hr_shop:other",
            "'hr_shop:other': expected a Headrace app, found a value of type int. Did you mean hr_shop:app?",
        ),
    ],
)
def test_a_wrong_place_is_refused_with_what_was_meant(place: str, sentence: str, folder: Path) -> None:
    assert sentence.format(folder=folder) in refusal(place)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("x = 1\nmissing.name", "NameError: name 'missing' is not defined ({file}, line 2)"),
        ("import hr_nowhere", "ModuleNotFoundError: No module named 'hr_nowhere' ({file}, line 1)"),
        ("def broken(:", "SyntaxError: invalid syntax (hr_bad.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3 ({file}, line 1)"),
        (
            "from headrace import Headrace\napp = Headrace()\n@app.task(attempts=0)\ndef f(): ...",
            "({file}, line 3). Correct the module",
        ),
        ("raise ValueError('a\\nb')", "ValueError: a b ({file}, line 1)"),
    ],
)
def test_a_module_that_fails_is_named_with_the_line(code: str, sentence: str, folder: Path) -> None:
    (folder / "hr_bad.py").write_text(code)

    text = refusal("hr_bad:app")

    assert text.startswith("importing 'hr_bad' failed: ")
    assert sentence.format(file=folder / "hr_bad.py") in text
    assert "\n" not in text
