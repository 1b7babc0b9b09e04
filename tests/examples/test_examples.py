"""Every example runs as a script of its own and prints exactly what its docstring says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server.processes import processes_below, wait_ended

if TYPE_CHECKING:
    from headrace.server import PrivateServer

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
TIMEOUT = 75.0


def promised(path: Path) -> str:
    """Return what the docstring says is printed."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    _, found, text = docstring.partition("Prints::\n\n")
    assert found, f"{path.name} does not say what it prints"
    return textwrap.dedent(text).rstrip() + "\n"


def run(path: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=folder,
        env={**kept, "TMPDIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(path: Path, tmp_path: Path, server: PrivateServer, prefix: str) -> None:
    done = run(path, tmp_path, REDIS_URL=server.url, HEADRACE_PREFIX=prefix)

    assert (done.returncode, done.stdout, done.stderr) == (0, promised(path), "")


@pytest.mark.parametrize("name", ["enqueue_and_result", "sync_enqueue", "process_tasks"])
def test_an_example_starts_its_own_server_and_leaves_none_behind(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.py"

    done = run(path, tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, promised(path), "")
    for process in processes_below(tmp_path):
        wait_ended(process.pid, timeout=10.0)


def test_an_example_is_short_and_starts_with_what_it_shows() -> None:
    for path in EXAMPLES:
        lines = path.read_text().splitlines()
        assert len(lines) <= 90, f"{path.name} has {len(lines)} lines"
        assert lines[0].startswith('"""'), path.name
        assert lines[-2].startswith("if __name__"), path.name
