"""A source file stays under 400 lines, a function under 60.

The two tables of exceptions are ratchets: an entry states the present length, may only be lowered, and goes when the
limit is kept. A docstring never counts against its function.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.tidy.tree import name_of, tracked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE_LIMIT = 400
FUNCTION_LIMIT = 60

# Path -> lines.
FILE_EXCEPTIONS: dict[str, int] = {}
# "path::Class.function" -> lines.
FUNCTION_EXCEPTIONS: dict[str, int] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, Function | ast.ClassDef):
            name = f"{prefix}{child.name}."
        if isinstance(child, Function):
            yield prefix + child.name, child
        yield from functions(child, name)


def function_length(function: Function) -> int:
    start, end = function.lineno, function.end_lineno or function.lineno
    docstring = function.body[0]
    is_docstring = isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    docstring_length = (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1 if is_docstring else 0
    return end - start + 1 - docstring_length


def lengths_of_files(sources: Mapping[str, str]) -> dict[str, int]:
    return {name: len(text.splitlines()) for name, text in sources.items()}


def lengths_of_functions(sources: Mapping[str, str]) -> dict[str, int]:
    return {
        f"{name}::{function_name}": function_length(function)
        for name, text in sources.items()
        for function_name, function in functions(ast.parse(text))
    }


def problems(lengths: Mapping[str, int], limit: int, exceptions: Mapping[str, int]) -> list[str]:
    found = []
    for name, length in lengths.items():
        allowed = exceptions.get(name, limit)
        if length > allowed:
            found.append(f"{name}: {length} lines, {allowed} allowed. Split it where the work changes kind.")
        elif name in exceptions and length < allowed:
            found.append(f"{name}: {length} lines, its exception says {allowed}. Lower the exception or take it out.")
    found += [
        f"{name}: has an exception and is gone. Take the exception out." for name in exceptions.keys() - lengths.keys()
    ]
    return found


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return {name_of(path): path.read_text() for path in tracked(".py", "src")}


def test_every_source_file_is_short(sources: dict[str, str]) -> None:
    found = problems(lengths_of_files(sources), FILE_LIMIT, FILE_EXCEPTIONS)

    assert not found, "\n".join(found)


def test_every_function_is_short(sources: dict[str, str]) -> None:
    found = problems(lengths_of_functions(sources), FUNCTION_LIMIT, FUNCTION_EXCEPTIONS)

    assert not found, "\n".join(found)


LONG = "class A:\n    def b(self):\n" + "        pass\n" * 5


@pytest.mark.parametrize(
    ("lengths", "exceptions", "complaint"),
    [
        (lengths_of_files({"a.py": "pass\n" * 5}), {}, "a.py: 5 lines, 4 allowed"),
        (lengths_of_functions({"a.py": LONG}), {}, "a.py::A.b: 6 lines, 4 allowed"),
        (
            lengths_of_functions({"a.py": "def f():\n    async def g():\n" + "        pass\n" * 4}),
            {},
            "a.py::f.g: 5 lines",
        ),
        (lengths_of_files({"a.py": "pass\n" * 5}), {"a.py": 6}, "Lower the exception"),
        (lengths_of_files({"a.py": "pass\n" * 3}), {"a.py": 6}, "Lower the exception or take it out"),
        ({}, {"a.py": 6}, "a.py: has an exception and is gone"),
    ],
)
def test_what_is_too_long_is_found(lengths: dict[str, int], exceptions: dict[str, int], complaint: str) -> None:
    found = problems(lengths, 4, exceptions)

    assert complaint in "\n".join(found)


def test_a_docstring_does_not_count() -> None:
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1\n'

    assert lengths_of_functions({"a.py": text}) == {"a.py::f": 2}
