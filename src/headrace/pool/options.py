"""The options of a pool: each checked, each with its unit and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from headrace.pool.client_errors import ClientOptionError

#: Longest wait, seconds, that stands for redis-py's `timeout=None`: there is no endless wait.
LONGEST_WAIT: Final = 600.0
#: Lowest and highest value of each option, seconds unless the name says otherwise.
BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "timeout": (0.0, LONGEST_WAIT),
    "idle_timeout": (0.01, 86_400.0),
    "max_lifetime": (0.01, 604_800.0),
    "check_after": (0.0, 86_400.0),
    "check_timeout": (0.01, 60.0),
    "held_warn": (0.0, 86_400.0),
    "open_timeout": (0.01, 60.0),
    "open_parallel": (1, 256),
    "reconnect_patience": (0.0, 600.0),
    "exhausted_after": (0.0, 600.0),
    "stats_interval": (0.0, 86_400.0),
}
#: Longest interval of the upkeep, seconds.
UPKEEP_MOST: Final = 10.0


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool behaves; durations are seconds.

    Attributes:
        timeout: Longest wait for a connection; there is no endless wait.
        idle_timeout: Idle connections above the minimum are closed after this.
        max_lifetime: Connections are replaced after this, less up to 10 % at random, so that not all go at once.
        check_after: A connection that was idle for longer is checked before it is given out.
        check_timeout: Longest wait for that check.
        held_warn: A connection held for longer is reported in the log, once; 0 for never.
        open_timeout: Longest time of one attempt to open a connection.
        open_parallel: Connections that are opened at the same time at most.
        reconnect_patience: While the server is away, callers wait this long for it before they get the error.
        exhausted_after: A lane whose first waiter has waited this long for others to release counts as exhausted.
        stats_interval: A log line `pool stats` comes each interval; 0 for never.

    Raises:
        OptionError: A value is outside its bounds.
    """

    timeout: float = 20.0
    idle_timeout: float = 300.0
    max_lifetime: float = 3_600.0
    check_after: float = 30.0
    check_timeout: float = 1.0
    held_warn: float = 60.0
    open_timeout: float = 5.0
    open_parallel: int = 16
    reconnect_patience: float = 1.0
    exhausted_after: float = 1.0
    stats_interval: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = BOUNDS[field.name]
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ClientOptionError(
                    f"{field.name}={value!r:.40}: expected a number from {low:g} to {high:g}. "
                    "See `headrace.pool.ConnectionPool` for what it does."
                )

    @property
    def upkeep_interval(self) -> float:
        """Seconds between two upkeeps: a quarter of the shortest duration that they watch over, 0.05 to 10."""
        watched = [self.idle_timeout, self.max_lifetime, *([self.held_warn] if self.held_warn else [])]
        watched += [self.stats_interval * 4] if self.stats_interval else []
        return min(UPKEEP_MOST, max(0.05, min(watched) / 4))


def take_options(arguments: dict[str, Any], timeout: float | None) -> PoolOptions:
    """Take the options of a pool out of its arguments; a text is read as a number, since it stood in a URL.

    Args:
        arguments: Of the pool; what is none of its options stays in.
        timeout: The wait, None for the longest.

    Raises:
        OptionError: A value is no number, or outside its bounds.
    """
    names = [field.name for field in fields(PoolOptions) if field.name in arguments]
    given = {name: read_number(name, arguments.pop(name)) for name in names}
    return PoolOptions(timeout=LONGEST_WAIT if timeout is None else timeout, **given)


def read_number(name: str, value: Any) -> Any:
    """Return a number that stood in a URL as text; what is no text is returned as it is.

    Raises:
        OptionError: The text is no number.
    """
    if not isinstance(value, str):
        return value
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError as error:
        raise ClientOptionError(f"Invalid value for '{name}' in connection URL: {value!r:.40} is no number.") from error
