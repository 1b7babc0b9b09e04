"""How long a failed job waits for its next attempt, and how a task asks for one.

This module is arithmetic only: it counts no attempts, keeps no job and reads no clock. The worker asks a `Backoff` for
the delay before the attempt that follows attempt n, and a task raises `Retry` to ask for another attempt by itself.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from headrace.errors import OptionError

LONGEST_DELAY: Final = 31_536_000.0
"""Longest wait between two attempts: 365 days, in seconds."""

LARGEST_FACTOR: Final = 1_000.0
"""Largest growth of an exponential backoff from one attempt to the next."""

Random: TypeAlias = Callable[[], float]
"""A source of uniform numbers, 0 <= number < 1."""


@dataclass(frozen=True, slots=True, init=False)
class Fixed:
    """Wait the same time before every attempt.

    Example:
        >>> Fixed(5).delay(1), Fixed(5).delay(7)
        (5.0, 5.0)
        >>> Fixed(5, jitter=True).delay(3, lambda: 0.5)
        2.5
    """

    seconds: float
    jitter: bool

    def __init__(self, delay: float, *, jitter: bool = False) -> None:
        """Set the wait.

        Args:
            delay: Wait in seconds, 0 <= delay <= 31536000.
            jitter: Spread each wait evenly over 0 to its full length.

        Raises:
            OptionError: `delay` is no finite number within its bounds, or `jitter` is no bool.
        """
        object.__setattr__(self, "seconds", _number("Fixed", "delay", delay, 0.0, LONGEST_DELAY))
        object.__setattr__(self, "jitter", _switch("Fixed", "jitter", jitter))

    def delay(self, attempt: int, random: Random = _random.random) -> float:
        """Tell how long to wait after failed attempt number `attempt`.

        Args:
            attempt: Number of the attempt that failed, counted from 1.
            random: Source of numbers, 0 <= number < 1; used only with jitter.

        Returns:
            Seconds, 0 <= seconds <= delay.

        Raises:
            OptionError: `attempt` is no whole number from 1.
        """
        _attempt_number("Fixed", attempt)
        return _spread(self.seconds, random, jitter=self.jitter)


@dataclass(frozen=True, slots=True)
class Linear:
    """Wait `base` seconds longer after each attempt, up to `maximum`.

    Attributes:
        base: Wait after the first attempt in seconds, 0 <= base <= 31536000; attempt n waits base * n.
        maximum: Longest wait in seconds, 0 <= maximum <= 31536000.
        jitter: Spread each wait evenly over 0 to its full length.

    Raises:
        OptionError: An option is no finite number within its bounds, or `jitter` is no bool.

    Example:
        >>> backoff = Linear(base=2.0, maximum=5.0)
        >>> [backoff.delay(attempt) for attempt in (1, 2, 3, 4)]
        [2.0, 4.0, 5.0, 5.0]
    """

    base: float
    maximum: float = 3_600.0
    jitter: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", _number("Linear", "base", self.base, 0.0, LONGEST_DELAY))
        object.__setattr__(self, "maximum", _number("Linear", "maximum", self.maximum, 0.0, LONGEST_DELAY))
        _switch("Linear", "jitter", self.jitter)

    def delay(self, attempt: int, random: Random = _random.random) -> float:
        """Tell how long to wait after failed attempt number `attempt`.

        Args:
            attempt: Number of the attempt that failed, counted from 1.
            random: Source of numbers, 0 <= number < 1; used only with jitter.

        Returns:
            Seconds, 0 <= seconds <= maximum.

        Raises:
            OptionError: `attempt` is no whole number from 1.
        """
        _attempt_number("Linear", attempt)
        return _spread(_linear(self.base, attempt, self.maximum), random, jitter=self.jitter)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Multiply the wait by `factor` after each attempt, up to `maximum`.

    With jitter, which is the default, each wait is drawn evenly from 0 to its full length, so that jobs that failed
    together do not come back together.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).

    Attributes:
        base: Full wait after the first attempt in seconds, 0 <= base <= 31536000.
        maximum: Longest wait in seconds, 0 <= maximum <= 31536000; it also caps a larger `base`.
        factor: Growth from one attempt to the next, 1 <= factor <= 1000.
        jitter: Spread each wait evenly over 0 to its full length.

    Raises:
        OptionError: An option is no finite number within its bounds, or `jitter` is no bool.

    Example:
        >>> backoff = Exponential(base=2.0, maximum=60.0, jitter=False)
        >>> [backoff.delay(attempt) for attempt in (1, 2, 3, 6, 1_000_000)]
        [2.0, 4.0, 8.0, 60.0, 60.0]
        >>> Exponential(base=2.0).delay(3, lambda: 0.25)
        2.0
    """

    base: float = 2.0
    maximum: float = 300.0
    factor: float = 2.0
    jitter: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", _number("Exponential", "base", self.base, 0.0, LONGEST_DELAY))
        object.__setattr__(self, "maximum", _number("Exponential", "maximum", self.maximum, 0.0, LONGEST_DELAY))
        object.__setattr__(self, "factor", _number("Exponential", "factor", self.factor, 1.0, LARGEST_FACTOR))
        _switch("Exponential", "jitter", self.jitter)

    def delay(self, attempt: int, random: Random = _random.random) -> float:
        """Tell how long to wait after failed attempt number `attempt`.

        Args:
            attempt: Number of the attempt that failed, counted from 1.
            random: Source of numbers, 0 <= number < 1; used only with jitter.

        Returns:
            Seconds, 0 <= seconds <= maximum.

        Raises:
            OptionError: `attempt` is no whole number from 1.
        """
        _attempt_number("Exponential", attempt)
        full = _exponential(self.base, self.factor, attempt, self.maximum)
        return _spread(full, random, jitter=self.jitter)


Backoff: TypeAlias = Fixed | Linear | Exponential
"""Any of the three ways to wait between attempts."""


class Retry(Exception):
    """Ask for another attempt of the running job, raised by the task itself.

    Attributes:
        after: Wait in seconds before the next attempt, 0 <= after <= 31536000, or None for the backoff of the task.
        reason: Text kept with the attempt and shown to people.

    Raises:
        OptionError: `after` is no finite number within its bounds, or `reason` is no text.

    Example:
        >>> str(Retry(after=30, reason="the mail server is busy"))
        'retry after 30.0 s: the mail server is busy'
    """

    def __init__(self, after: float | None = None, reason: str = "") -> None:
        self.after = None if after is None else _number("Retry", "after", after, 0.0, LONGEST_DELAY)
        self.reason = _text("Retry", "reason", reason)
        super().__init__(self.after, reason)

    def __str__(self) -> str:
        """Say in one line what was asked for and why."""
        wait = "retry" if self.after is None else f"retry after {self.after} s"
        return f"{wait}: {self.reason}" if self.reason else wait


def _linear(base: float, attempt: int, maximum: float) -> float:
    try:
        return min(maximum, base * attempt)
    except OverflowError:
        # Why: an attempt number beyond the range of float passes every maximum, unless nothing times it is nothing.
        return maximum if base else 0.0


def _exponential(base: float, factor: float, attempt: int, maximum: float) -> float:
    if base == 0.0 or factor == 1.0:
        return min(maximum, base)
    try:
        return min(maximum, base * factor ** (attempt - 1))
    except OverflowError:
        return maximum


def _spread(full: float, random: Random, *, jitter: bool) -> float:
    return full * random() if jitter else full


def _number(kind: str, option: str, value: object, low: float, high: float) -> float:
    # Why: a comparison with NaN is false, so asking for "within" refuses NaN along with both infinities.
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    raise OptionError(
        f"{kind}({option}={value!r:.80}): expected a number from {low:g} to {high:.0f}. "
        f"Correct {option} where the {kind} is made."
    )


def _switch(kind: str, option: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise OptionError(
        f"{kind}({option}={value!r:.80}): expected True or False. Correct {option} where the {kind} is made."
    )


def _text(kind: str, option: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise OptionError(f"{kind}({option}={value!r:.80}): expected text. Pass a short sentence that says why.")


def _attempt_number(kind: str, attempt: object) -> None:
    if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
        raise OptionError(
            f"{kind}.delay(attempt={attempt!r:.80}): expected a whole number from 1. Attempts are counted from 1."
        )
