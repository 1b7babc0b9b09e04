"""Sets of settings with a name, for `headrace config apply --profile NAME`; each stands for all settings of a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings that go together.

    Attributes:
        text: What they are for.
        values: Variable to text; what is not named has its default.
    """

    text: str
    values: Mapping[str, str]


PROFILES: Final[Mapping[str, Profile]] = {
    "default": Profile("The defaults: nothing is stored for the fleet.", {}),
    "small": Profile(
        "A machine with one or two cores and up to 2 GB of memory.",
        {
            "REDIS_MAX_CONNECTIONS": "20",
            "REDIS_MIN_CONNECTIONS": "4",
            "QUEUE_CONCURRENCY": "10",
            "HEADRACE_THREADS": "4",
            "HEADRACE_JOB_PROCESSES": "1",
            "HEADRACE_KEEP_FINISHED_COUNT": "1000",
            "HEADRACE_KEEP_DEAD_COUNT": "1000",
        },
    ),
    "large": Profile(
        "Machines with eight cores or more, and a server that takes thousands of connections.",
        {
            "REDIS_MAX_CONNECTIONS": "200",
            "REDIS_MIN_CONNECTIONS": "40",
            "QUEUE_CONCURRENCY": "500",
            "HEADRACE_THREADS": "64",
            "HEADRACE_JOB_PROCESSES": "8",
            "HEADRACE_KEEP_FINISHED_COUNT": "100000",
            "HEADRACE_KEEP_DEAD_COUNT": "100000",
        },
    ),
    "incident": Profile(
        "The settings of the incident that Headrace is measured against, to reproduce it: 20 connections, 15 slots.",
        {
            "REDIS_MAX_CONNECTIONS": "20",
            "REDIS_MIN_CONNECTIONS": "0",
            "QUEUE_CONCURRENCY": "15",
        },
    ),
}
