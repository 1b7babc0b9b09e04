"""The input of the demonstration: the source files of the Python that runs it."""

from __future__ import annotations

import os
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: With fewer files than this, as in an image whose tests were taken out, the installed packages are counted too.
ENOUGH: Final = 1_000
#: Folders of installed packages, which may lie inside that of the standard library.
INSTALLED: Final = ("site-packages", "dist-packages")
#: Name of the package of those files that lie in no folder.
MODULES: Final = "(modules)"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One source file: `name` is its path below the folder `root`, with slashes."""

    root: str
    name: str

    @property
    def package(self) -> str:
        """The outermost folder of the name."""
        package, slash, _ = self.name.partition("/")
        return package if slash else MODULES


@dataclass(frozen=True, slots=True)
class Input:
    """All source files, sorted by name, and a few words that say which these are."""

    files: list[SourceFile]
    what: str


def find_input(library: Path | None = None, installed: Path | None = None, *, enough: int = ENOUGH) -> Input:
    """Find the source files of the running Python.

    Args:
        library: Folder of the standard library; that of this Python if None.
        installed: Folder of the installed packages; that of this Python if None.
        enough: With fewer files than this in the library, the installed packages are added.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    installed = installed or Path(sysconfig.get_path("purelib"))
    files = [SourceFile(str(library), name) for name in _source_names(library)]
    more: list[SourceFile] = []
    if len(files) < enough:
        more = [SourceFile(str(installed.parent), f"{installed.name}/{name}") for name in _source_names(installed)]
        files += more
    what = f"the {len(files):,} source files of Python {platform.python_version()}"
    if more:
        what += f" and its packages ({len(more):,})"
    return Input(sorted(files, key=lambda file: (file.package, file.name)), what)


def _source_names(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in INSTALLED]
        for name in names:
            if name.endswith(".py"):
                yield Path(parent, name).relative_to(folder).as_posix()
