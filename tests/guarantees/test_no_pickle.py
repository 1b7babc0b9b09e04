"""Nothing is ever pickled: whoever can write to the server cannot run code in a worker."""

from __future__ import annotations

import ast

import pytest

from tests.tidy.tree import name_of, tracked

#: Modules that pickle, or run what they read; of multiprocessing, everything that sends objects does.
FORBIDDEN = {
    "pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "copyreg",
    "multiprocessing", "concurrent.futures.process", "yaml",
}  # fmt: skip
CALLS = {"eval", "exec", "__import__"}
#: Names that only look like it: this one returns the path of the interpreter.
HARMLESS = {"multiprocessing.spawn.get_executable"}


def problems(name: str, text: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            found.append(f"{name}:{node.lineno}: calls {node.func.id}")
        elif isinstance(node, ast.Attribute) and node.attr == "ProcessPoolExecutor":
            found.append(f"{name}:{node.lineno}: uses {node.attr}")
        forbidden = [
            each
            for each in names
            if each not in HARMLESS and any(each == module or each.startswith(f"{module}.") for module in FORBIDDEN)
        ]
        found += [f"{name}:{node.lineno}: imports {each}" for each in forbidden]  # type: ignore[attr-defined]  # an import
    return found


def test_no_source_file_pickles_or_runs_what_it_reads() -> None:
    pages = tracked(".py", "src")

    found = [line for path in pages for line in problems(name_of(path), path.read_text())]

    assert len(pages) > 30
    assert not found, "\n".join(found)

    # Red when: any module of src imports pickle.


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from pickle import loads", "import multiprocessing.pool", "eval('1')", "import yaml as y"],
)
def test_a_forbidden_line_is_found(line: str) -> None:
    assert problems("a.py", f"x = 1\n{line}\n")[0].startswith("a.py:2: ")

    # Red when: problems() does not see this way of writing it.
