"""Every relative link of a document leads to a file of this repository, and its anchor to a heading."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from tests.tidy.tree import ROOT, name_of, tracked

if TYPE_CHECKING:
    from pathlib import Path

CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)|^\s*\[[^\]]+\]:\s*(\S+)|<(?:img|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"", re.MULTILINE
)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def links(text: str) -> list[str]:
    found = LINK.findall(CODE.sub("", text))
    return [link for groups in found for link in groups if link and not ELSEWHERE.match(link)]


def anchors(text: str) -> set[str]:
    """Make the anchors of the headings as the usual renderers do; a repeated one gets a number."""
    made: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (candidate := f"{anchor}-{number}" if number else anchor) in made:
            number += 1
        made.add(candidate)
    return made


def problem(page: Path, link: str, root: Path) -> str | None:
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page.resolve()
    where = f"{page.relative_to(root)}: ({link})"
    if not target.is_relative_to(root.resolve()):
        return f"{where} leaves the repository"
    if not target.exists():
        return f"{where} leads to no file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
        return f"{where} leads to no heading; there are {sorted(anchors(target.read_text()))}"
    return None


@pytest.mark.parametrize("page", tracked(".md"), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    found = [complaint for link in links(page.read_text()) if (complaint := problem(page, link, ROOT))]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](gone.md)", "(gone.md) leads to no file"),
        ("![a](img/gone.png 'title')", "(img/gone.png) leads to no file"),
        ("[a]: gone.md", "(gone.md) leads to no file"),
        ('<img width="4" src="gone.svg">', "(gone.svg) leads to no file"),
        ("[a](page.md#other)", "leads to no heading; there are ['the-heading']"),
        ("# The heading\n\n[a](#other)", "leads to no heading"),
        ("[a](../../up.md)", "leaves the repository"),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, complaint: str) -> None:
    page = tmp_path / "page.md"
    page.write_text("# The `heading`\n" if "#other" in text and "# " not in text else text)

    found = [problem(page, link, tmp_path) for link in links(text)]

    assert [complaint in str(line) for line in found] == [True]


@pytest.mark.parametrize(
    "text", ["`[a](gone.md)`", "```\n[a](gone.md)\n```", "[a](https://example.com/x)", "[a](#one-1)\n# One\n# One"]
)
def test_what_is_no_broken_link_passes(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)

    assert [problem(page, link, tmp_path) for link in links(text)] in ([], [None])
