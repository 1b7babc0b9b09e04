"""Quantiles of times. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all values is at most; 0 of nothing.

    Example:
        >>> quantile([3.0, 1.0, 2.0], 0.5), quantile([], 0.5)
        (2.0, 0.0)
    """
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
