"""Names of settings that are none, or none yet: each is told once in the log, with the name that was probably meant."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

logger = logging.getLogger(__name__)

#: Names that are kept for parts which this version does not have. One that is a setting is not looked up here.
PLANNED: Final = re.compile(
    r"MONITORING_[A-Z_]+_INTERVAL_MS"
    r"|VISUALIZATION_(ENABLED|UPDATE_INTERVAL_MS|MAX_DATA_POINTS|SAMPLING_RATE)"
)


def warn_of_others(names: Iterable[str], known: Collection[str]) -> None:
    """Warn of each name that looks like a setting of ours and is none.

    Args:
        names: Variables that are set.
        known: Variables of all settings.
    """
    for name in names:
        if name in known:
            continue
        if name.startswith("HEADRACE_"):
            _warn_unknown(name, tuple(known))
        elif PLANNED.fullmatch(name):
            _warn_planned(name)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the known name which is most alike, or nothing."""
    import difflib  # noqa: PLC0415  # Only a wrong name needs it, and it costs a tenth of the import of this module.

    # Why: the common start would make any two variables look alike.
    endings = {candidate.removeprefix("HEADRACE_"): candidate for candidate in known}
    matches = difflib.get_close_matches(name.removeprefix("HEADRACE_"), endings, n=1)
    return f" Did you mean {endings[matches[0]]}?" if matches else ""


# The caches are what makes a warning appear once; they are bounded in case a program makes up names without end.
@lru_cache(maxsize=256)
def _warn_unknown(name: str, known: tuple[str, ...]) -> None:
    logger.warning(
        "unknown setting ignored: %s.%s `headrace config show` lists all settings.", name, nearest(name, known)
    )


@lru_cache(maxsize=256)
def _warn_planned(name: str) -> None:
    logger.warning(
        "setting without effect: %s. The part that it is for is not in this version; `headrace config show` lists all "
        "settings.",
        name,
    )


def forget_warnings() -> None:
    """Let each warning appear again; for tests."""
    _warn_unknown.cache_clear()
    _warn_planned.cache_clear()
