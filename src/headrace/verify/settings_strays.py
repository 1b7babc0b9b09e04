"""Find what somebody set and what has no effect: misspelt variables, and lines of .env that the environment hides."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.settings import VARIABLES
from headrace.settings_env import read_dotenv
from headrace.settings_names import PLANNED
from headrace.verify.claims_server import Stray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: How alike a name must be to be taken for a misspelt one, 0..1.
ALIKE: Final = 0.85
#: Strays that are named; bounded since an environment may hold anything.
NAMED: Final = 8


def find_strays(environ: Mapping[str, str] | None = None, dotenv: Path = Path(".env")) -> list[Stray]:
    """Return what has no effect, at most eight.

    Args:
        environ: Variables; those of the process without any.
        dotenv: File with NAME=value lines; it need not exist.

    Raises:
        SettingError: The file cannot be read.
    """
    environ = os.environ if environ is None else environ
    from_file = read_dotenv(dotenv, environ)
    found = [*_misspelt({**from_file, **environ}), *_hidden(environ, from_file, dotenv)]
    return found[:NAMED]


def _misspelt(values: Mapping[str, str]) -> Iterator[Stray]:
    for name in sorted(values):
        if name in VARIABLES or PLANNED.fullmatch(name) or name.startswith("_"):
            continue
        near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=ALIKE)
        if near:
            yield Stray(f"{name} is no setting and has no effect", f"Rename {name} to {near[0]}.")
        elif name.startswith("HEADRACE_"):
            yield Stray(f"{name} is no setting and has no effect", f"Take {name} out; see `headrace config show`.")


def _hidden(environ: Mapping[str, str], from_file: Mapping[str, str], dotenv: Path) -> Iterator[Stray]:
    for name, text in sorted(from_file.items()):
        given = environ.get(name, "").strip()
        if name in VARIABLES and given and text.strip() and given != text.strip():
            kind = VARIABLES[name].kind
            yield Stray(
                f"{name}={kind.conceal(text)} in {dotenv} is hidden by {name}={kind.conceal(given)} of the environment",
                f"Set {name} in one place only: the environment wins over {dotenv}.",
                is_note=True,
            )
