"""Versions of the settings that are stored for a whole fleet: what one holds, as bytes, and what differs between two.

A version holds every setting that the fleet sets, as text in the unit of its variable, so that it can be read without
any other. Reading and writing them in Redis is in `headrace.store.versions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.errors import OptionError, SettingError
from headrace.settings import VARIABLES, Settings
from headrace.settings_names import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.settings_entry import Change

#: Versions that are kept, and the most that one takes: 6.5 MB in the worst case, some 100 KB in an ordinary one.
VERSIONS_KEPT: Final = 100
VERSION_LIMIT_BYTES: Final = 65_536
NOTE_LIMIT: Final = 500
AUTHOR_LIMIT: Final = 100


class _Body(msgspec.Struct, array_like=True, frozen=True):
    values: dict[str, str]
    author: str
    note: str
    restores: int = -1


_decoder = msgspec.msgpack.Decoder(_Body)
_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the fleet's settings.

    Attributes:
        number: From 1; 0 stands for none, when nothing was ever stored.
        values: Variable to text.
        at_ms: When it was stored, by the server's clock, ms since 1970.
        author: Who stored it.
        note: Why.
        restores: The earlier version whose values it took, -1 for none.
    """

    number: int
    values: Mapping[str, str]
    at_ms: int = 0
    author: str = ""
    note: str = ""
    restores: int = -1

    @property
    def origin(self) -> int:
        """Number of the version in which these values were first stored: itself, or the one that it restores."""
        return self.number if self.restores < 0 else self.restores


NO_VERSION: Final = Version(0, {})


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that two versions do not have alike; None where it is not stored."""

    variable: str
    before: str | None
    after: str | None
    change: Change

    def __str__(self) -> str:
        """Write it as one assignment: `QUEUE_CONCURRENCY 100 -> 5`; what is not stored has its default."""
        return f"{self.variable} {_shown(self.variable, self.before)} -> {_shown(self.variable, self.after)}"


def encode_version(values: Mapping[str, str], author: str, note: str, restores: int = -1) -> bytes:
    """Write what a version holds.

    Raises:
        OptionError: The author, the note or all of it is too long.
    """
    for what, text, limit in (("author", author, AUTHOR_LIMIT), ("note", note, NOTE_LIMIT)):
        if len(text) > limit or not text.isprintable():
            raise OptionError(f"{what} {text[:40]!r}: expected at most {limit} printable characters. Shorten it.")
    body = _encoder.encode(_Body(dict(sorted(values.items())), author, note, restores))
    if len(body) > VERSION_LIMIT_BYTES:
        raise OptionError(f"the settings take {len(body)} bytes: the limit is {VERSION_LIMIT_BYTES}. Store fewer.")
    return body


def read_version(number: int, stored: bytes) -> Version:
    """Read "time body" as the server keeps it.

    Raises:
        SettingError: It cannot be read.
    """
    time, _, body = stored.partition(b" ")
    try:
        found = _decoder.decode(body)
        at_ms = int(time)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise SettingError(
            f"version {number} of the fleet's settings cannot be read: {len(stored)} bytes that are none. Something "
            "else wrote to this key; go back with `headrace config rollback`, or store them anew.",
            source="fleet",
        ) from error
    return Version(number, found.values, at_ms, found.author, found.note, found.restores)


def check_values(values: Mapping[str, str], *, place: str) -> dict[str, str]:
    """Return values that the fleet may store; all of them are checked, each alone and together.

    Args:
        values: Variable to text.
        place: Where they can be corrected, for errors.

    Raises:
        SettingError: A name is no setting or belongs to one process, or a value is out of its bounds.
    """
    for name in values:
        setting = VARIABLES.get(name)
        if setting is None:
            raise SettingError(
                f"{name}: no such setting.{nearest(name, VARIABLES)} Correct it in {place}; `headrace config show` "
                "lists all settings.",
                variable=name,
                source="fleet",
            )
        if setting.change == "local":
            raise SettingError(
                f"{name}: a setting of each process, which the fleet cannot store. Take it out of {place}, and set it "
                "in the environment or the .env file of the process.",
                variable=name,
                source="fleet",
            )
    checked = {name: text.strip() for name, text in values.items()}
    Settings().with_fleet(checked, place=place)
    return checked


def find_differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """List what differs, in the order of the settings; names that are no settings come last.

    Example:
        >>> [str(each) for each in find_differences({"HEADRACE_THREADS": "4"}, {"QUEUE_CONCURRENCY": "5"})]
        ['QUEUE_CONCURRENCY 100 -> 5', 'HEADRACE_THREADS 4 -> 32']
    """
    names = [name for name in VARIABLES if name in before or name in after]
    names += sorted((before.keys() | after.keys()) - VARIABLES.keys())
    return [
        Difference(name, before.get(name), after.get(name), VARIABLES[name].change if name in VARIABLES else "local")
        for name in names
        if before.get(name) != after.get(name)
    ]


def _shown(variable: str, text: str | None) -> str:
    if text is not None:
        return text
    return VARIABLES[variable].write(VARIABLES[variable].default) if variable in VARIABLES else "none"
