"""Count the same files again without any queue, in one process: what the jobs found is compared with this.

It shares no code with the tasks but Python's own parser, and finds lines, statements and names in another way, so that
a mistake of the tasks shows as well as one of the queue.
"""

from __future__ import annotations

import ast
import gc
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.demo.input import SourceFile

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is in one file. `functions` are all of its functions: lines, name, first line."""

    lines: int = 0
    definitions: int = 0
    imports: int = 0
    reason: str = ""
    functions: list[tuple[int, str, int]] = field(default_factory=list)


def recount(files: Iterable[SourceFile]) -> Iterator[tuple[str, FileFacts]]:
    """Count file by file; the caller may do other things in between."""
    # Measured: the trees have no cycles, and looking for some again and again would take a third of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        for file in files:
            yield file.name, recount_file(Path(file.root, file.name), file.name)
    finally:
        if collects:
            gc.enable()


def recount_file(path: Path, name: str) -> FileFacts:
    """Count one file; one that cannot be read or parsed has a reason, and no more than its lines."""
    lines = 0
    try:
        source = path.read_bytes()
        lines = len(_LINE_END.findall(source)) + (bool(source) and source[-1:] not in b"\r\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(source, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as error:
        return FileFacts(lines, reason=f"{type(error).__name__}: {error.msg}")
    except (OSError, ValueError, RecursionError) as error:
        return FileFacts(lines, reason=f"{type(error).__name__}: {error}")
    definitions = imports = 0
    functions: list[tuple[int, str, int]] = []
    # A node and the names around it. A statement stands in a list of its parent, whatever that is called.
    stack: list[tuple[ast.AST, tuple[str, ...]]] = [(tree, ())]
    while stack:
        node, around = stack.pop()
        kind = type(node).__name__
        if kind in {"FunctionDef", "AsyncFunctionDef", "ClassDef"}:
            facts = vars(node)
            around = (*around, facts["name"])
            definitions += 1
            if kind != "ClassDef":
                functions.append((facts["end_lineno"] - facts["lineno"] + 1, ".".join(around), facts["lineno"]))
        elif kind in {"Import", "ImportFrom"}:
            imports += 1
        for value in vars(node).values():
            if type(value) is list:
                stack += [(child, around) for child in value if isinstance(child, _HOLDERS)]
    return FileFacts(lines, definitions, imports, "", functions)


_HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)
