"""What the declaration of one setting holds, and how its text becomes a value; `headrace.settings` has them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from headrace.errors import SettingError

if TYPE_CHECKING:
    from headrace.settings_env import Kind

T = TypeVar("T")
Source: TypeAlias = Literal["argument", "environment", ".env", "fleet", "default"]
"""Where a value came from, the nearest first."""
Change: TypeAlias = Literal["live", "restart", "local"]
"""When a change of the fleet's value takes effect.

`live`: running processes take it within a second. `restart`: a worker takes it when it starts. `local`: never, since it
belongs to one process, or says where the fleet's settings are.
"""


def declare(variable: str, kind: Kind[T], default: T, text: str, *, change: Change = "restart") -> T:
    """Declare one setting, as the default of a field of `Settings`.

    Args:
        variable: Name in the environment.
        kind: How it is written, and its bounds.
        default: Value without any source.
        text: What it means, one sentence.
        change: When a change of the fleet's value takes effect; `live` only if running parts are told of it.
    """
    # A type checker shall see a plain default of the field's type, as it does for `dataclasses.field` itself.
    return field(default=default, metadata={"variable": variable, "kind": kind, "text": text, "change": change})


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """The declaration of one setting."""

    variable: str
    field: str
    kind: Kind[T]
    default: T
    text: str
    change: Change

    def parse(self, given: str, source: Source, *, place: str) -> T:
        """Turn the text of a variable into a value.

        Args:
            given: The text.
            source: Where it came from.
            place: The same for the error, as a place where it can be corrected.

        Raises:
            SettingError: The text is malformed or outside the bounds.
        """
        try:
            return self.kind.parse(given.strip())
        except ValueError:
            default = "" if self.default is None else f" for the default of {self.kind.show(self.default)}"
            remedy = f"Correct it in {place}, or remove it there{default}."
            raise self._error(self.variable, given, self.kind.expected, source, remedy) from None

    def check(self, given: object, source: Source) -> T:
        """Check a value that the program handed over.

        Raises:
            SettingError: The value has the wrong type or lies outside the bounds.
        """
        try:
            return self.kind.check(given)
        except ValueError:
            remedy = f"Correct the argument, or leave it out for {self.variable} or the default."
            raise self._error(self.field, given, self.kind.expected_value, source, remedy) from None

    def write(self, value: T) -> str:
        """Return a value as its variable would hold it, passwords masked; `none` when it has none."""
        shown = self.kind.show(value)
        if isinstance(shown, float) and shown.is_integer():
            shown = int(shown)
        return "none" if shown is None else str(shown)

    def _error(self, name: str, given: object, expected: str, source: Source, remedy: str) -> SettingError:
        value = self.kind.conceal(given)
        return SettingError(
            f"{name}={value}: expected {expected}. {remedy}",
            variable=name,
            value=value,
            expected=expected,
            source=source,
        )


def read_declarations(fields: tuple[Any, ...]) -> tuple[Setting[Any], ...]:
    """Return the declarations that dataclass fields carry, in order."""
    return tuple(
        Setting(
            item.metadata["variable"],
            item.name,
            item.metadata["kind"],
            item.default,
            item.metadata["text"],
            item.metadata["change"],
        )
        for item in fields
        if item.metadata
    )
