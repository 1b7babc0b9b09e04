"""Kinds of settings that hold several names with a value each: `mail=5,bulk=20`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from headrace.settings_env import Kind

if TYPE_CHECKING:
    from headrace.settings_env import Shown

V = TypeVar("V", int, str)

#: Names in one setting.
MAX_NAMES: Final = 1_000
#: Most slots of a queue, as for the slots of a worker.
MAX_SLOTS: Final = 10_000
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_PACKAGE: Final = Path(__file__).parent
_QUEUE: Final = re.compile(r"[^\s{},]{1,100}")
_PART: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", re.ASCII)


class Pairs(Kind["tuple[tuple[str, V], ...]"], Generic[V]):
    """Names with a value each, separated by commas; kept in the order of the names."""

    def parse(self, text: str) -> tuple[tuple[str, V], ...]:
        """Split `name=value,name=value`; a name that stands twice is refused."""
        pairs: list[tuple[str, V]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            # Why the last one: the name of a queue may hold an equals sign, a value does not.
            name, equals, value = part.rpartition("=")
            if not equals:
                raise ValueError
            pairs.append((name.strip(), self._read(value.strip())))
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError
        return self.check(tuple(pairs))

    def check(self, value: object) -> tuple[tuple[str, V], ...]:
        """Accept a dict, or pairs of names and values."""
        try:
            pairs = dict(value)  # type: ignore[call-overload]  # whatever it is, it is looked at below
        except TypeError as error:
            raise ValueError from error
        if len(pairs) > MAX_NAMES:
            raise ValueError
        return tuple(sorted((self._name(name), self._value(given)) for name, given in pairs.items()))

    def show(self, value: tuple[tuple[str, V], ...]) -> Shown:
        """Give the text that `parse` reads, None when there are no names."""
        return ",".join(f"{name}={given}" for name, given in value) or None

    def _read(self, text: str) -> V:
        raise NotImplementedError

    def _name(self, name: object) -> str:
        raise NotImplementedError

    def _value(self, value: object) -> V:
        raise NotImplementedError


class Limits(Pairs[int]):
    """Most slots of some queues."""

    bounds = f"NAME=1..{MAX_SLOTS},..."
    expected = f"queues with a whole number of slots from 1 to {MAX_SLOTS} each, such as mail=5,bulk=20"
    expected_value = f"a dict of queue names with a whole number of slots from 1 to {MAX_SLOTS} each"

    def _read(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_SLOTS))):
            raise ValueError
        return int(text)

    def _name(self, name: object) -> str:
        if isinstance(name, str) and name.isprintable() and _QUEUE.fullmatch(name):
            return name
        raise ValueError

    def _value(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SLOTS:
            return value
        raise ValueError


class PartLevels(Pairs[str]):
    """Log levels of some parts of Headrace, named as its modules are: `pool`, `worker.lease`."""

    bounds = "PART=LEVEL,..."
    expected = f"parts of headrace with one of {', '.join(LEVELS)} each, such as pool=DEBUG,worker.lease=WARNING"
    expected_value = f"a dict of parts of headrace with one of {', '.join(LEVELS)} each"

    def _read(self, text: str) -> str:
        return text

    def _name(self, name: object) -> str:
        name = name.removeprefix("headrace.") if isinstance(name, str) else ""
        path = _PACKAGE / name.replace(".", "/")
        # Why: a misspelt part would silently change nothing.
        if _PART.fullmatch(name) and (path.is_dir() or path.with_suffix(".py").is_file()):
            return name
        raise ValueError

    def _value(self, value: object) -> str:
        if isinstance(value, str) and value.upper() in LEVELS:
            return value.upper()
        raise ValueError
