"""What the measured processes do not get from the surroundings."""

from __future__ import annotations

from typing import Final

#: Starts of the variables that hold settings: what is measured runs as by default.
OWN: Final = ("REDIS_", "HEADRACE_", "QUEUE_", "MEMORY_", "MONITORING_", "VISUALIZATION_")
