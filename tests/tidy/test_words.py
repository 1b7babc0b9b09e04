"""No file names a folder of somebody's machine or the host of a package registry."""

from __future__ import annotations

import re

import pytest

from tests.tidy.tree import name_of, tracked_files

FORBIDDEN = {
    # The pieces keep this file itself clean.
    "a path of one machine": re.compile(r"(?<![\w.~*)}-])/(?:work|root|Users/\w+|home/\w+)/"),
    "the host of a package registry": re.compile(r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|crates\.io)\b"),
}


def problems(name: str, text: str) -> list[str]:
    return [
        f"{name}:{number}: {what}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FORBIDDEN.items()
        if pattern.search(line)
    ]


def test_every_file_is_free_of_them() -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found += problems(name_of(path), content.decode())

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line", ["cd /" + "work/main", "see /" + "root/.cache", '"/' + 'home/ann/x"', "https://" + "pypi." + "org/simple"]
)
def test_a_forbidden_word_is_found(line: str) -> None:
    assert problems("a.md", f"fine\n{line}\n")[0].startswith("a.md:2: ")


@pytest.mark.parametrize("line", ["src/work/file", "~/home/x", "pypi", "/roots/x"])
def test_a_harmless_word_passes(line: str) -> None:
    assert problems("a.md", line) == []
