"""The layers of pyproject.toml are kept by the source, and refuse an import that points up or sideways."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(package_root: Path, config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINTER, "--no-logo", "--no-cache", str(config)],
        cwd=package_root,
        env={**os.environ, "PYTHONPATH": str(package_root), "COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("importer", "imported", "kept"),
    [
        ("app", "pool", True),
        ("job", "task", True),
        ("store", "errors", True),
        ("store", "pool", False),
        ("pool", "server", False),
        ("record", "store", False),
        ("task", "worker", False),
        ("app", "cli", False),
        ("errors", "app", False),
    ],
)
def test_an_import_must_point_down(tmp_path: Path, importer: str, imported: str, kept: bool) -> None:  # noqa: FBT001 a parameter of the table above
    package = tmp_path / "headrace"
    package.mkdir()
    for name in ("__init__", "errors", importer, imported):
        (package / f"{name}.py").touch()
    (package / f"{importer}.py").write_text(f"import headrace.{imported}\n")

    done = lint(tmp_path, ROOT / "pyproject.toml")

    assert (done.returncode == 0) is kept, done.stdout
    assert kept or f"headrace.{importer} is not allowed to import headrace.{imported}" in done.stdout


def test_a_module_without_a_layer_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "headrace"
    package.mkdir()
    for name in ("__init__", "errors", "newcomer"):
        (package / f"{name}.py").touch()

    done = lint(tmp_path, ROOT / "pyproject.toml")

    assert done.returncode == 1
    assert "newcomer" in done.stdout


def test_there_is_one_contract_and_it_ignores_nothing() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

    assert [(contract["type"], contract["exhaustive"]) for contract in contracts] == [("layers", True)]
    assert not {"ignore_imports", "exhaustive_ignores"} & contracts[0].keys()
