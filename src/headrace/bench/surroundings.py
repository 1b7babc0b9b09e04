"""What the measured processes get from the surroundings, and what they do not."""

from __future__ import annotations

import os
from typing import Final

#: Starts of the variables that hold settings: what is measured runs as by default.
OWN: Final = ("REDIS_", "HEADRACE_", "QUEUE_", "MEMORY_", "MONITORING_", "VISUALIZATION_")


def default_environment() -> dict[str, str]:
    """Return the variables of this process, but those that hold settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith(OWN)}
