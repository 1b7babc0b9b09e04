"""Where the rules look: the files of the repository, as git knows them."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "headrace"


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """List the files under version control that are on the disk; without git, as in an archive, all of them."""
    if (ROOT / ".git").exists():
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        paths = [ROOT / name for name in listing.split("\0") if name]
    else:
        hidden_or_made = {"__pycache__", "build", "dist"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(part in hidden_or_made or part.startswith(".") for part in path.relative_to(ROOT).parts)
        ]
    return tuple(sorted(path for path in paths if path.is_file()))


def tracked(suffix: str, folder: str = ".") -> tuple[Path, ...]:
    """List the tracked files with an ending, as `.py`, inside a folder of the root."""
    return tuple(path for path in tracked_files() if path.suffix == suffix and path.is_relative_to(ROOT / folder))


def name_of(path: Path) -> str:
    """Name a file by its path from the root."""
    return path.relative_to(ROOT).as_posix()
