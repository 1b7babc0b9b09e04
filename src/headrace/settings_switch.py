"""The kind of setting that is on or off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.settings_env import Kind

if TYPE_CHECKING:
    from headrace.settings_env import Shown

_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


class Switch(Kind[bool]):
    """True or false, also written yes or no, on or off, 1 or 0."""

    bounds = "true|false"
    expected = "true or false"
    expected_value = "True or False"

    def parse(self, text: str) -> bool:
        """Find the word whatever its case."""
        return self.check(_WORDS.get(text.lower()))

    def check(self, value: object) -> bool:
        """Accept True and False; 1 and 0 are none."""
        if isinstance(value, bool):
            return value
        raise ValueError

    def show(self, value: bool) -> Shown:  # noqa: FBT001  # The value of the setting is what it shows.
        """Give the word."""
        return "true" if value else "false"
