"""The few connections of who only looks on, so that a fleet which does not fit its server can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.settings_env import CLUSTER_SCHEMES

if TYPE_CHECKING:
    from headrace.errors import SettingError
    from headrace.settings import Settings


def few_connections(settings: Settings, maximum: int) -> Settings:
    """Return settings with few connections, for looking on without disturbing; as they are where they name a cluster.

    Args:
        settings: What was configured.
        maximum: Most connections.
    """
    if (settings.redis_url or "").partition("://")[0] in CLUSTER_SCHEMES:
        return settings
    return settings.override({"redis_max_connections": maximum, "redis_min_connections": 0})


def is_too_few(error: SettingError, configured: Settings, tried: Settings) -> bool:
    """Tell whether an opening failed only because few connections were tried, and one node of a cluster was named.

    Args:
        error: Why it failed.
        configured: What was configured.
        tried: The settings that it failed with.
    """
    return error.variable == "REDIS_MAX_CONNECTIONS" and tried is not configured
