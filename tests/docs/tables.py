"""Write tables of Markdown, and put them where a page wants them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.tidy.tree import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def fill(text: str, name: str, body: str) -> str:
    """Put a body between the two comments of this name.

    Raises:
        LookupError: The text does not hold both of them once.
    """
    before, opened, rest = text.partition(f"<!-- {name} -->\n")
    _, closed, after = rest.partition(f"<!-- /{name} -->")
    if not opened or not closed or f"<!-- {name} -->" in after:
        raise LookupError(f"expected <!-- {name} --> and <!-- /{name} -->, once each")
    return f"{before}{opened}\n{body}\n\n{closed}{after}"


def write_pages(pages: Mapping[Path, str]) -> None:
    """Write the pages that are not as they should be."""
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"wrote {name_of(path)}\n")
