"""Put a table into a Markdown file, between two comments: `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path


def check_marks(path: Path, name: str) -> None:
    """Make sure that a file has both marks, before a long run.

    Raises:
        OptionError: It does not, or cannot be read.
    """
    _split(path, name)


def fill_marks(path: Path, name: str, body: str) -> None:
    """Replace what stands between the marks.

    Raises:
        OptionError: The file does not hold both of them once.
    """
    before, after = _split(path, name)
    path.write_text(f"{before}\n\n{body}\n\n{after}", encoding="utf-8")


def _split(path: Path, name: str) -> tuple[str, str]:
    """Return what stands before and after the part, marks included."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise OptionError(f"--write {path}: it cannot be read: {error.strerror}. Name a Markdown file.") from error
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise OptionError(f"--write {path}: expected {begin} and {end}, once each and in this order. Add them there.")
    before, _, rest = text.partition(begin)
    return before + begin, end + rest.partition(end)[2]
