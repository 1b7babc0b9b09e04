"""The documentation site is complete, every link in it leads somewhere, and it needs no other host."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest

from tests.docs.built import complaints, read
from tests.docs.site import SiteError, Stage, build, misplaced, navigation, place, rewritten
from tests.tidy.tree import ROOT, name_of, tracked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed, which builds the site; `make setup` installs it")
    return build(tmp_path_factory.mktemp("site"))


def test_every_document_is_a_page_of_the_site_and_is_found_by_its_search(site: Path) -> None:
    documents = {str(place(name_of(path)).with_suffix(".html")) for path in tracked(".md", "docs")}

    found = {item["location"].partition("#")[0] for item in json.loads((site / "search.json").read_text())["items"]}

    assert documents == {name for name in documents if (site / name).is_file()}
    assert documents <= found


def test_a_file_that_a_document_links_to_is_shown_in_the_site(site: Path) -> None:
    page = read(site / "state-machine.html")

    assert "repository/src/headrace/store/lua/settle.lua.html" in page.links
    assert "Invariant" in (site / "repository/src/headrace/store/lua/settle.lua.html").read_text()


def test_the_search_works_in_a_page_that_was_opened_as_a_file(site: Path) -> None:
    loads = read(site / "operating/index.html").loads

    assert "../assets/iframe-worker.js" in loads
    assert (site / "search.js").read_text().startswith("var __index")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<a href="gone.html">', "page.html links to gone.html, which is not there"),
        ('<a href="/gone.html">', "page.html links to /gone.html, which is not there"),
        ('<a href="other.html#gone">', "page.html links to other.html#gone; that page has no such heading"),
        ('<a href="#gone">', "page.html links to #gone; that page has no such heading"),
        ('<img src="gone.svg">', "page.html loads gone.svg, which is not there"),
        ('<script src="https://a.example/x.js"></script>', "page.html loads https://a.example/x.js"),
        ('<link rel="stylesheet" href="//a.example/x.css">', "page.html loads //a.example/x.css"),
        ('<link rel="preconnect" href="https://a.example">', "page.html loads https://a.example"),
        ('<pre class="mermaid">', "page.html has a block of class mermaid, whose program is on another host"),
        ('<link rel="stylesheet" href="x.css">', "x.css loads https://a.example/f.woff"),
    ],
)
def test_what_is_wrong_with_a_page_is_named(tmp_path: Path, body: str, complaint: str) -> None:
    (tmp_path / "page.html").write_text(body)
    (tmp_path / "other.html").write_text('<h1 id="one">')
    if "x.css" in complaint and "a.example/x.css" not in complaint:
        (tmp_path / "x.css").write_text("@font-face {src: url('https://a.example/f.woff')}")

    assert complaints(tmp_path) == [complaint]


def test_a_page_without_a_fault_passes(tmp_path: Path) -> None:
    links = ("other.html#one", "#two", "sub/", "/other.html", "https://a.example/", "mailto:a@a.example")
    (tmp_path / "page.html").write_text('<h2 id="two">' + "".join(f'<a href="{link}"></a>' for link in links))
    (tmp_path / "other.html").write_text('<h1 id="one"><link rel="canonical" href="https://a.example/">')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text('<img src="data:image/png;base64,"><img src="../x.svg">')
    (tmp_path / "x.svg").touch()

    assert complaints(tmp_path) == []


NAMES = {f"docs/{name}" for name in ("index.md", "a/2.md", "a/1.md", "a/index.md", "a/x.svg")} | {"CHANGELOG.md"}


def test_a_folder_of_the_navigation_stands_for_its_pages() -> None:
    entries = ["index.md", {"A": "a/"}, {"B": [{"B1": "b/"}]}, {"C": [{"Changes": "../CHANGELOG.md"}]}]

    filled = navigation(entries, NAMES)

    pages = ["docs/a/index.md", "docs/a/1.md", "docs/a/2.md"]
    assert filled == ["docs/index.md", {"A": pages}, {"C": [{"Changes": "CHANGELOG.md"}]}]
    assert misplaced(filled, NAMES) == []


def test_a_document_that_the_navigation_leaves_out_or_repeats_is_named() -> None:
    filled = navigation(["index.md", {"Again": "index.md"}, "a/1.md", "a/index.md"], NAMES)

    assert misplaced(filled, NAMES) == [
        "mkdocs.yml: nav: docs/a/2.md stands in it 0 times",
        "mkdocs.yml: nav: docs/index.md stands in it 2 times",
    ]


def test_an_entry_of_the_navigation_without_a_page_is_refused() -> None:
    with pytest.raises(SiteError, match=r"nav: gone\.md: there is no such file"):
        navigation([{"Gone": "gone.md"}], NAMES)


def test_links_are_rewritten_and_code_is_left_alone() -> None:
    text = '[`a`](x.md#y "t") `[b](x.md)`\n```\n[c](x.md)\n```\n[d]: x.md\n<img width="1" src="x.md">\n'

    written = rewritten(text, str.upper)

    assert written == '[`a`](X.MD#Y "t") `[b](x.md)`\n```\n[c](x.md)\n```\n[d]: X.MD\n<img width="1" src="X.MD">\n'


def test_a_link_to_what_is_not_under_version_control_is_refused(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage._move("docs/x.md", "../gone.py")
    stage._move("docs/x.md", "gone.md#a")

    with pytest.raises(
        SiteError, match=r"docs/x\.md: \(\.\./gone\.py\) leads to nothing.*\ndocs/x\.md: \(gone\.md#a\)"
    ):
        stage.write([])


def test_a_file_is_shown_whole_whatever_it_holds(tmp_path: Path) -> None:
    Stage(tmp_path).write(["tests/docs/examples.py"])

    lines = (tmp_path / "repository/tests/docs/examples.py.md").read_text().splitlines()

    shown = (ROOT / "tests/docs/examples.py").read_text().splitlines()
    assert lines[-len(shown) - 2 :] == ["```` python", *shown, "````"]
