"""The tree drawn on top of errors.py is the tree of its classes."""

from __future__ import annotations

import builtins
import re
from types import ModuleType

import pytest

from headrace import errors

LINE = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?: {2,}.*?)?(?:\((?:also .*|(?P<builtin>\w+))\))?\s*$")
INDENT = 4


def drawn(docstring: str) -> dict[str, tuple[str, str | None]]:
    """Read the drawing: each name with the name above it, and the built-in error it also is."""
    tree: dict[str, tuple[str, str | None]] = {}
    branch: list[str] = []
    lines = [match for line in docstring.partition("::\n")[2].splitlines() if (match := LINE.match(line))]
    margin = min((len(match["indent"]) for match in lines), default=0)
    for match in lines:
        depth = (len(match["indent"]) - margin) // INDENT
        branch[depth:] = [match["name"]]
        tree[match["name"]] = (branch[depth - 1] if depth else "Exception", match["builtin"])
    return tree


def defined(module: ModuleType) -> dict[str, tuple[str, str | None]]:
    """Read the classes: each public name with its first base, and the built-in error among its other bases."""
    tree: dict[str, tuple[str, str | None]] = {}
    for name, value in vars(module).items():
        if (
            isinstance(value, type)
            and issubclass(value, Exception)
            and value.__module__ == module.__name__
            and name[0] != "_"
        ):
            builtin = next((base.__name__ for base in value.__bases__[1:] if hasattr(builtins, base.__name__)), None)
            tree[name] = (value.__bases__[0].__name__, builtin)
    return tree


def problems(module: ModuleType) -> list[str]:
    drawing, classes = drawn(module.__doc__ or ""), defined(module)
    return [
        f"{name}: drawn as {drawing.get(name)}, defined as {classes.get(name)} (base, built-in)"
        for name in sorted(drawing.keys() | classes.keys())
        if drawing.get(name) != classes.get(name)
    ]


def test_the_drawing_equals_the_classes() -> None:
    found = problems(errors)

    assert not found, "\n".join(found)
    assert "PoolTimeout" in drawn(errors.__doc__ or "")


CODE = """
class RootError(Exception): ...
class WaitError(RootError): ...
class PoolTimeout(WaitError, TimeoutError): ...
"""
DRAWING = """Errors::

    RootError
    └── WaitError          wait (also a TimeoutError or nothing)
        └── PoolTimeout    it took too long   (TimeoutError)
"""


def sample(docstring: str, code: str) -> ModuleType:
    module = ModuleType("sample", docstring)
    exec(code, vars(module))
    return module


@pytest.mark.parametrize(
    ("docstring", "code", "complaint"),
    [
        (DRAWING, CODE + "class New(WaitError): ...", "New: drawn as None"),
        (DRAWING + "        └── Gone    no class\n", CODE, "Gone: drawn as ('WaitError', None), defined as None"),
        (DRAWING.replace("        └──", "    └──"), CODE, "PoolTimeout: drawn as ('RootError'"),
        (DRAWING.replace("(TimeoutError)", ""), CODE, "PoolTimeout: drawn as ('WaitError', None)"),
        ("Nothing drawn.", CODE, "RootError: drawn as None"),
    ],
)
def test_a_difference_is_found(docstring: str, code: str, complaint: str) -> None:
    found = problems(sample(docstring, code))

    assert complaint in "\n".join(found)


def test_an_equal_sample_passes() -> None:
    assert problems(sample(DRAWING, CODE)) == []
