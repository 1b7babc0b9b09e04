"""The kind of a setting that is a whole number, or `auto` for one that Headrace finds by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from headrace.settings_env import Kind, Whole

if TYPE_CHECKING:
    from headrace.settings_env import Shown

AUTO: Final = "auto"
#: Maximum that a pool begins with when it follows the load, or its minimum if that is more.
FIRST_MAXIMUM: Final = 20
WholeOrAuto: TypeAlias = "int | Literal['auto']"


class AutoWhole(Kind["int | Literal['auto']"]):
    """A whole number between two bounds, or `auto` in upper or lower case."""

    def __init__(self, low: int, high: int) -> None:
        self._whole = Whole(low, high)
        self.bounds = f"{self._whole.bounds} or {AUTO}"
        self.expected = self.expected_value = f"{self._whole.expected}, or {AUTO}"

    def parse(self, text: str) -> WholeOrAuto:
        """Turn digits into a number within the bounds, or take the word."""
        return AUTO if text.lower() == AUTO else self._whole.parse(text)

    def check(self, value: object) -> WholeOrAuto:
        """Accept an int within the bounds, or the word."""
        return AUTO if isinstance(value, str) and value.lower() == AUTO else self._whole.check(value)

    def show(self, value: WholeOrAuto) -> Shown:
        """Give the number or the word."""
        return value


def first_maximum(maximum: WholeOrAuto, minimum: int) -> int:
    """Return the maximum that a pool begins with.

    Example:
        >>> first_maximum(100, 20), first_maximum("auto", 5), first_maximum("auto", 50)
        (100, 20, 50)
    """
    return maximum if isinstance(maximum, int) else max(FIRST_MAXIMUM, minimum)
