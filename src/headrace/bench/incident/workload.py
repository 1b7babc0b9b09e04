"""The load that both sides carry; every choice in it comes from one seed, so that both get the same.

It is the incident's in miniature: users of a web service whose requests read a session, work for a while, and enqueue a
job; jobs that read and write a little and wait for something outside. Neither needs the processor, so that a small
machine can carry it.

What decides about memory comes from the incident's figures: a history of 150 MB was 58 % of the process, so that 110 MB
were something else, and the process filled 89 to 92 % of its limit, so that this was about 288 MB. The history grows
with time; two days of monitoring are what it takes to come to about 150 MB, and they are taken at the start.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Queues, slots of each in one instance of the service, and instances in one process.
QUEUES: Final = ("mail", "reports", "models")
SLOTS: Final = 5
INSTANCES: Final = 2
#: A text of this length goes with each job.
TEXT: Final = "x" * 200


@dataclass(frozen=True, slots=True)
class Workload:
    """How much load, and for how long; durations are seconds.

    Attributes:
        seed: Whatever is drawn is drawn from it.
        uptime: Monitoring taken at the start.
        memory_limit_mb: Memory that the process may have.
        application_mb: Memory of the service itself, which both sides hold.
        idle: Length of the phase without any load.
        steady: Length of each of two phases with a load that both carry with ease.
        steady_rate: Requests a second in the first: the 100 jobs a minute that the incident's service still did.
        busy_rate: Requests a second in the second.
        surge_users: Requests that come at once, within `surge_within`.
        surge_within: In which time they come.
        rush: Length of the phase with more users than the incident's pool can carry.
        rush_users: Users in it, who make one request after the other.
        probe_interval: Time between two health checks.
        connections: Most connections of Headrace's pool; 0 for its default. The incident's has 20, and opens more.
    """

    seed: int = 1
    uptime: float = 172_800.0
    memory_limit_mb: int = 288
    application_mb: int = 75
    idle: float = 3.0
    steady: float = 8.0
    steady_rate: float = 100.0 / 60.0
    busy_rate: float = 10.0
    surge_users: int = 150
    surge_within: float = 0.5
    rush: float = 16.0
    rush_users: int = 400
    probe_interval: float = 0.5
    connections: int = 0

    def shortened(self, factor: float) -> Workload:
        """Return the same load for a part of the time, with as many users."""
        times = {name: getattr(self, name) * factor for name in ("uptime", "idle", "steady", "rush")}
        return Workload(**{**asdict(self), **times})

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    # What is drawn

    def job_seconds(self, number: int) -> float:
        """How long a job waits for something outside: 50 to 150 ms."""
        return self._draw("job", number).uniform(0.05, 0.15)

    def request_seconds(self, number: int) -> float:
        """How long a request works: 200 to 400 ms."""
        return self._draw("request", number).uniform(0.2, 0.4)

    def surge_seconds(self, number: int) -> float:
        """How long a request of the surge works: 1 to 1.5 s."""
        return self._draw("surge", number).uniform(1.0, 1.5)

    def think_seconds(self, number: int) -> float:
        """How long a user waits before the next request: 1 to 1.5 s."""
        return self._draw("think", number).uniform(1.0, 1.5)

    def queue(self, number: int) -> str:
        """Queue of a job."""
        return QUEUES[number % len(QUEUES)]

    def arrivals(self, rate: float, seconds: float) -> Iterator[float]:
        """Yield when the requests of a steady load come, in seconds from its beginning.

        Each of `rate * seconds` comes at a random moment, so that their number is the same on every run and seed.

        Example:
            >>> first = list(Workload().arrivals(10.0, 2.0))
            >>> first == list(Workload().arrivals(10.0, 2.0)), len(first)
            (True, 20)
        """
        draw = self._draw("arrivals", round(rate * 1000))
        yield from sorted(draw.uniform(0.0, seconds) for _ in range(round(rate * seconds)))

    def _draw(self, what: str, number: int) -> random.Random:
        return random.Random(f"{self.seed} {what} {number}")  # noqa: S311 - a load to be repeated, and no secret
