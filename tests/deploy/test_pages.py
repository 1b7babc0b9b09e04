"""Examples of docs/operating that need a program which not every reader's tests have: run with that of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from headrace.server import find_server
from tests.deploy.parts import DEADLINE, serving
from tests.tidy.tree import ROOT, name_of

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted((ROOT / "docs" / "operating").glob("*.md"))
MARK = "<!-- not run: it needs valkey-cli; tests/deploy/test_pages.py runs it with that of the package -->"
CLIENT = shutil.which("valkey-cli", path=f"{os.environ['PATH']}{os.pathsep}{find_server().path.parent}")


def examples(page: str) -> list[tuple[str, str]]:
    """Return the marked commands of a page, and what each prints."""
    blocks = re.findall(rf"{re.escape(MARK)}\n```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    commands = [command for block in blocks for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command.partition("\n")[0], command.partition("\n")[2]) for command in commands]


MARKED = [page for page in PAGES if MARK in page.read_text()]


@pytest.mark.skipif(CLIENT is None, reason="no valkey-cli here")
@pytest.mark.parametrize("page", MARKED, ids=name_of)
def test_what_is_asked_of_a_server_with_its_own_client_is_answered_as_shown(page: Path, tmp_path: Path) -> None:
    found = examples(page.read_text())
    assert found

    with serving(tmp_path) as url:
        path = url.removeprefix("unix://")
        for command, printed in found:
            done = subprocess.run(
                command.replace("valkey-cli", f"{CLIENT} -s {path}").split(), capture_output=True, text=True,
                timeout=DEADLINE, check=True,
            )  # fmt: skip
            assert done.stdout == printed, command


def test_a_server_refuses_the_files_of_a_later_one_with_the_words_of_the_page(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    with serving(data):
        pass
    (base,) = data.glob("appendonlydir/*.base.rdb")
    # REDIS0011: four digits of a version, here one that does not exist yet.
    content = base.read_bytes()
    assert re.match(rb"REDIS00\d\d", content)
    base.write_bytes(b"REDIS0099" + content[9:])

    with pytest.raises(AssertionError, match="Can't handle RDB format version"), serving(data):
        pass

    assert "Can't handle RDB format version" in (ROOT / "docs/operating/rolling-back.md").read_text()
