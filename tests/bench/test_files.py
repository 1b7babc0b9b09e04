"""A table goes between the marks of a document; what only a checkout has is found, or said to be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.bench import checkout
from headrace.bench.checkout import find_checkout
from headrace.bench.marks import check_marks, fill_marks
from headrace.bench.peers import check_peers
from headrace.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n<!-- incident -->\nold\n<!-- /incident -->\n\nz\n")

    fill_marks(page, "incident", "| new |")

    assert page.read_text() == "a\n\n<!-- incident -->\n\n| new |\n\n<!-- /incident -->\n\nz\n"


@pytest.mark.parametrize("text", ["", "<!-- incident -->", "<!-- /incident --> <!-- incident -->", None])
def test_a_page_without_marks_is_refused_before_the_run(tmp_path: Path, text: str | None) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)

    with pytest.raises(OptionError, match=r"--write .*page\.md: "):
        check_marks(page, "incident")


def test_a_checkout_is_found_from_a_folder_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src" / "headrace").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "x.py").touch()
    monkeypatch.setattr(checkout, "_PACKAGE", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "src" / "headrace")

    assert find_checkout("benchmarks/x.py") == tmp_path / "benchmarks" / "x.py"


def test_an_installed_headrace_says_that_it_needs_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "_PACKAGE", tmp_path)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(OptionError, match=r"not part of an installed Headrace.*Run the command inside a checkout"):
        find_checkout("benchmarks/incident/service.py")


def test_peers_are_named_as_the_checkout_names_them() -> None:
    assert check_peers("saq, arq") == ["saq", "arq"]
    assert check_peers("peers") == []
    assert check_peers("taskiq") == ["taskiq-redis"]
    with pytest.raises(OptionError, match=r"expected incident, the file of an earlier --json, peers, or some of arq"):
        check_peers("saq,nonesuch")
