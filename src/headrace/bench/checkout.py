"""Find what is not part of an installed Headrace: the incident's design and the other job queues, in benchmarks/."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from headrace.errors import OptionError

#: Where a checkout may be: around the current folder, and around this file when it is installed in editable form.
_PACKAGE: Final = Path(__file__).resolve().parents[3]


def find_checkout(name: str) -> Path:
    """Return the path of a file of the repository.

    Args:
        name: Path from the root, such as `benchmarks/peers.py`.

    Raises:
        OptionError: There is no checkout around.
    """
    here = Path.cwd()
    for root in (here, *here.parents, _PACKAGE):
        if (root / name).is_file() and (root / "src" / "headrace").is_dir():
            return root / name
    raise OptionError(
        f"{name} is not part of an installed Headrace, and no checkout of its repository is here ({here}) or above. "
        "Run the command inside a checkout of the same version."
    )
