"""What `headrace worker` was asked for, handed on to a program without the parser of the command line.

Measured: a process that has parsed the command line holds 13 MB more than one that was handed the plan, and takes 0.2 s
longer to start. So the supervisor replaces the program that parsed it, and the children never load it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

import msgspec

#: Holds the plan in the environment of a supervisor and of its children. It starts with no HEADRACE_: it is no setting.
PLAN_VARIABLE: Final = "_HEADRACE_WORKER_PLAN"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for.

    Attributes:
        app: The app as `module:attribute`.
        queues: Names with the most slots each may use; none for the queues of all tasks.
        concurrency: Slots of each process; None: as the settings say.
        processes: Worker processes.
        grace: Seconds that running jobs get at a stop; None: as the settings say.
        burst: Stop as soon as no job is left that is due.
        reload: Restart when code changes.
        uvloop: Use uvloop if it is installed.
        health_port: Port that answers probes, 0 for none; None: as the settings say.
        health_host: Address on which it does; None: as the settings say.
    """

    app: str
    queues: dict[str, int | None]
    concurrency: int | None
    processes: int
    grace: float | None
    burst: bool
    reload: bool
    uvloop: bool
    health_port: int | None = None
    health_host: str | None = None

    def encode(self) -> str:
        """Write the plan as JSON, for the environment."""
        return msgspec.json.encode(self).decode()


def decode_plan(text: str) -> Plan:
    """Read what `Plan.encode` wrote."""
    return msgspec.json.decode(text, type=Plan)


def same_command() -> list[str]:
    """Return the program and arguments of this process, so that a list of processes shows what runs."""
    return [sys.executable, *sys.orig_argv[1:]]
