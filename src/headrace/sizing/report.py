"""What is said of the size of a pool: one log line at the start, the table, and each change explained in one line."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headrace.settings import VARIABLES, source_of

if TYPE_CHECKING:
    from headrace.settings import Settings
    from headrace.sizing.auto import Window
    from headrace.sizing.demand import Sizing

logger = logging.getLogger("headrace.sizing")


def log_size(sizing: Sizing, settings: Settings) -> None:
    """Say once what the pool may hold and why, what there is, and the table for who wants it."""
    logger.info("pool size", extra=size_fields(sizing, settings))
    if sizing.verdict in {"near", "over"}:
        logger.warning("the fleet comes near maxclients", extra={"reason": sizing.advice})
    if logger.isEnabledFor(logging.DEBUG):
        for row in sizing.rows:
            logger.debug(
                "pool demand",
                extra={"consumer": row.consumer, "here": row.process, "fleet": row.fleet, "what": row.text},
            )


def size_fields(sizing: Sizing, settings: Settings) -> dict[str, object]:
    """Return the fields of that line."""
    server, limits = sizing.server, sizing.limits
    return {
        "minimum": sizing.minimum,
        "minimum_source": source_of(settings, VARIABLES["REDIS_MIN_CONNECTIONS"]),
        "maximum": sizing.maximum,
        "auto": sizing.auto,
        "maximum_source": source_of(settings, VARIABLES["REDIS_MAX_CONNECTIONS"]),
        # Why not with those that borrow: how many they are is a guess at the start, and reads like an alarm.
        "needed": sizing.links,
        "recommended": sizing.recommended,
        "why": sizing.reason,
        "maxclients": "unknown" if server.maxclients is None else server.maxclients,
        "clients": "unknown" if server.clients is None else server.clients,
        "processes": sizing.processes,
        "fleet_maximum": sizing.places,
        "fleet_share": "unknown" if limits is None else limits.share,
        "verdict": sizing.verdict,
    }


def log_resize(before: int, after: int, reason: str, window: Window | None) -> None:
    """Explain one change of the maximum in one line."""
    figures: dict[str, object] = {}
    if window is not None:
        figures = {
            "calls_per_second": round(window.arrivals, 1),
            "held_mean_ms": round(window.service * 1000, 2),
            "wait_mean_ms": round(window.wait * 1000, 2),
            "wait_p99_ms": round(window.wait_p99 * 1000, 2),
            "in_use": window.in_use,
            "waiting": window.waiting,
            "waiting_highest": window.waiting_highest,
        }
    # Why the names: `from` is a word of Python, and the line is read by people.
    logger.info("pool resized", extra={"from": before, "to": after, "reason": reason, **figures})
