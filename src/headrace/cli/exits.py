"""How a command ends: its exit code, and which errors stand for which. It imports no more than the errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.errors import ArgumentError, OptionError, SettingError

if TYPE_CHECKING:
    from headrace.errors import HeadraceError

EXIT_OK: Final = 0
#: The command was right, and what it asked for failed.
EXIT_FAILED: Final = 1
#: The command line or a setting is wrong.
EXIT_USAGE: Final = 2
#: What the user corrects on the command line, in the environment or in .env.
USAGE_ERRORS: Final = (SettingError, OptionError, ArgumentError)


def exit_code(error: HeadraceError) -> int:
    """Return the exit code that an error stands for."""
    return EXIT_USAGE if isinstance(error, USAGE_ERRORS) else EXIT_FAILED
