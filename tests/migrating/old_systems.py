"""The other job queues, each in an environment of its own beside those of the benchmarks, and a reader who has one."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import pytest

from tests.docs.examples import File, Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

# Why not by `import`: a type checker takes the folder of that name for the module.
peers: Any = importlib.import_module("benchmarks.peers")

#: What the pages write above a block that only `OldReader` runs.
MARK: Final = "<!-- not run: tests/migrating runs it in an environment of its own -->\n"
#: Files of the page with this start, and these programs, belong to the other system.
OLD_FILES: Final = "old_"
#: How a script for Node begins on a page, since `#` begins no comment there.
SCRIPT: Final = "```text\n// old_"
OLD_PROGRAMS: Final = frozenset({"celery", "rq", "arq"})
#: What npm installs for BullMQ; the first is what the page was written with.
NODE_PACKAGES: Final = ("bullmq@6.7.0", "ioredis@6.0.0")
INSTALL_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there is no environment."""

    reason: str


def prepare(names: Sequence[str]) -> dict[str, Path | Missing]:
    """Make the environments that are not there, all at once, as much of it is waiting; `node` is that of BullMQ."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(names)) as pool:
        # That there is no package index is found out soon.
        patch.setenv("PIP_RETRIES", "1")
        patch.setenv("PIP_DEFAULT_TIMEOUT", "10")
        made = pool.map(lambda name: node_modules() if name == "node" else python_environment(name), names)
        return dict(zip(names, made, strict=True))


def python_environment(name: str) -> Path | Missing:
    """Return the folder of programs of a job queue for Python, installed once."""
    (subject,) = peers.load_subjects(name)
    try:
        peers.install(subject)
    except peers.SubjectError as error:
        return Missing(f"{subject.version} cannot be installed here: {error}")
    return Path(subject.python).parent


def node_modules() -> Path | Missing:
    """Return the folder of modules with BullMQ for Node, installed once."""
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        return Missing("node and npm are not on PATH")
    folder = Path(peers.ENVIRONMENTS) / "bullmq-node"
    stamp, wanted = folder / "installed.txt", "\n".join(NODE_PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"]
        command = [npm, "install", *options, "--fetch-timeout=10000", "--prefix", str(folder), *NODE_PACKAGES]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            return Missing(f"{' '.join(NODE_PACKAGES)} cannot be installed here: {type(error).__name__}")
        stamp.write_text(wanted)
    return folder / "node_modules"


@dataclass
class OldReader(Reader):
    """A reader who also has the other system, and so runs the blocks that are marked with `MARK`.

    Attributes:
        programs: Folder with the programs of the other system; None when the PATH has them.
    """

    programs: Path | None = None

    def follow_all(self, page: str) -> list[str]:
        """Do what a page says, with what is marked; return each way in which it is wrong."""
        assert MARK in page
        return list(self.follow(page.replace(MARK, "").replace(SCRIPT, SCRIPT.replace("//", "#"))))

    def _write(self, file: File) -> None:
        shown = f"//{file.text.removeprefix('#')}" if file.name.endswith(".mjs") else file.text
        super()._write(replace(file, text=shown))

    def _open(self, text: str, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        words = text.split()
        is_old = words[0] in OLD_PROGRAMS or any(word.startswith(OLD_FILES) for word in words[1:])
        return super()._open(f"{self.programs}{os.sep}{text}" if is_old and self.programs else text, output)
