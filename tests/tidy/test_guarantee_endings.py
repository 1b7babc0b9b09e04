"""A test of a guarantee ends with the change that would turn it red: `# Red when: settle.lua skips the fence check.`"""

from __future__ import annotations

import ast
import itertools
import re

import pytest

from tests.tidy.tree import name_of, tracked


def ending(lines: list[str]) -> str:
    """Join the comment lines that still belong to a function after its last statement."""
    belonging = itertools.takewhile(lambda line: not line or line.startswith(" "), lines)
    return " ".join(line.strip().removeprefix("#").strip() for line in belonging if line)


def problems(name: str, text: str) -> list[str]:
    return [
        f"{name}::{node.name}: ends without `# Red when: …`"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if not re.search(r"Red when: \S.*\.$", ending(text.splitlines()[node.end_lineno :]))
    ]


def test_every_guarantee_says_what_would_break_it() -> None:
    pages = tracked(".py", "tests/guarantees")

    found = [line for path in pages for line in problems(name_of(path), path.read_text())]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "body", ["    assert True\n", "    # Red when: x.\n    assert True\n", "    assert True\n    # Red when:\n"]
)
def test_a_missing_ending_is_found(body: str) -> None:
    text = f"def test_x():\n{body}\n\ndef test_y():\n    pass\n    # Red when: y.\n"

    assert problems("a.py", text) == ["a.py::test_x: ends without `# Red when: …`"]


@pytest.mark.parametrize("comment", ["# Red when: it breaks.", "# Red when: it\n    # breaks."])
def test_an_ending_passes(comment: str) -> None:
    assert problems("a.py", f"async def test_x():\n    assert True\n\n    {comment}\n\n\nx = 1\n") == []
