"""What a probe says, without any I/O: how an answer's time splits, where two clocks stand, and when a status changes.

An answer is late because the loop of this process was blocked, because the server let the request wait, or because of
the way between them. The loop's part is measured. The server tells in its answer what time it was there; from all
answers so far it is known where its clock stands against ours, and so how long the way there took and how long the way
back. A slow network delays both alike; a busy server delays only the request.

Source: D. Mills, "Network Time Protocol Version 4", RFC 5905, 2010 (offset and delay from four times of one exchange).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from headrace.health.verdict import ORDER, Status

#: Two clocks drift apart by less than this, seconds a second: twice what NTP corrects at most.
DRIFT: Final = 0.001
#: Signs that are worse than the status, among the latest, before it gets worse, unless one is enough to be sure.
ENTER: Final = 2
LATEST: Final = 3
#: Signs in a row that are better than the status before it gets better.
LEAVE: Final = 3
#: Part of the threshold under which an answer counts as fast again; in between, the status stays.
LEAVE_SHARE: Final = 0.7
#: Part of the time between two looks that a server must have worked to be called busy.
BUSY_SHARE: Final = 0.8


class Offset:
    """Where the server's clock stands against ours: an interval that every answer narrows.

    An answer that was sent for at `sent` and arrived at `received` says that the server's clock is ahead by at least
    `server - received` and at most `server - sent`.

    Example:
        >>> offset = Offset()
        >>> offset.add(10.0, 10.2, 60.1)  # it may be 49.9 to 50.1 s ahead
        >>> offset.add(11.0, 11.002, 61.001)
        >>> round(offset.middle or 0.0, 3), offset.width < 0.01
        (50.0, True)
    """

    __slots__ = ("_at", "_high", "_low")

    def __init__(self) -> None:
        self._low = self._high = self._at = 0.0

    @property
    def middle(self) -> float | None:
        """Seconds by which the server's clock is ahead; None before the first answer."""
        return (self._low + self._high) / 2 if self._at else None

    @property
    def width(self) -> float:
        """Length of the interval, seconds."""
        return self._high - self._low

    def add(self, sent: float, received: float, server: float) -> None:
        """Narrow the interval by one answer; a clock that was set begins a new one."""
        low, high = server - received, server - sent
        drift = (received - self._at) * DRIFT
        if self._at:
            narrowed = max(low, self._low - drift), min(high, self._high + drift)
            if narrowed[0] <= narrowed[1]:
                low, high = narrowed
        self._low, self._high, self._at = low, high, received


@dataclass(frozen=True, slots=True)
class Split:
    """Where the time of one answer went, in seconds; the three parts add up to the total."""

    total: float
    loop: float = 0.0
    server: float = 0.0
    network: float = 0.0

    @property
    def latency(self) -> float:
        """What the server and the way to it took."""
        return self.server + self.network


@dataclass(frozen=True, slots=True)
class Busy:
    """How long a server worked between two answers, in seconds."""

    worked: float
    between: float


def split_answer(total: float, blocked: float, ahead: float | None, busy: Busy | None) -> Split:
    """Say where the time of one answer went.

    Args:
        total: From sending to handling, seconds.
        blocked: How long the loop of this process was blocked meanwhile.
        ahead: How long after the sending the server answered, by its own clock; None when that cannot be told.
        busy: How long the server worked since the answer before; None when that is unknown.

    Example:
        >>> split_answer(0.5, 0.45, None, None).loop
        0.45
        >>> split_answer(0.4, 0.0, 0.2, None)  # as long there as back
        Split(total=0.4, loop=0.0, server=0.0, network=0.4)
        >>> split_answer(0.4, 0.0, 0.39, None).server > 0.37
        True
    """
    loop = min(max(blocked, 0.0), total)
    rest = total - loop
    server = 0.0
    if ahead is not None:
        there = min(max(ahead, 0.0), total)
        back = max(0.0, total - there - loop)
        server = min(max(there - back, 0.0), rest)
    if busy is not None and busy.worked >= BUSY_SHARE * busy.between:
        server = rest
    return Split(total, loop, server, rest - server)


class Machine:
    """A status that changes only for good reason: worse after several bad signs, better after several good in a row.

    Invariant: a sign that is sure takes effect at once when it is worse, and never makes anything better by itself.

    Example:
        >>> machine = Machine()
        >>> good, bad = Status.HEALTHY, Status.DEGRADED
        >>> [str(machine.feed(sign)) for sign in (bad, good, bad)]
        ['healthy', 'healthy', 'degraded']
        >>> str(machine.feed(Status.UNHEALTHY, sure=True))
        'unhealthy'
        >>> [str(machine.feed(good)) for _ in range(3)]
        ['unhealthy', 'unhealthy', 'healthy']
    """

    __slots__ = ("_latest", "status")

    def __init__(self) -> None:
        self.status = Status.HEALTHY
        # The latest signs since the last change, as ranks; None is something in between.
        self._latest: deque[int | None] = deque(maxlen=LATEST)

    @property
    def undecided(self) -> bool:
        """Whether signs of a change were seen, and not enough of them yet."""
        return bool(self._worse() or self.progress[0])

    @property
    def is_quiet(self) -> bool:
        """Whether it is healthy and nothing points elsewhere."""
        return self.status is Status.HEALTHY and not self.undecided

    @property
    def worsening(self) -> bool:
        """Whether another look may show that it has got worse."""
        return bool(self._worse(2))

    @property
    def progress(self) -> tuple[int, int]:
        """How many good signs in a row were seen, and how many it takes."""
        good = 0
        for rank in reversed(self._latest):
            if rank is None or rank >= ORDER.index(self.status):
                break
            good += 1
        return good, LEAVE

    def feed(self, sign: Status | None, *, sure: bool = False) -> Status:
        """Take one sign and return the status after it.

        Args:
            sign: What was seen; None for something in between, which speaks for no change.
            sure: Whether one sign is enough to get worse.
        """
        rank = None if sign is None else ORDER.index(sign)
        self._latest.append(rank)
        worse = self._worse()
        if sure and rank is not None and rank > ORDER.index(self.status):
            self._turn(rank)
        elif len(worse) >= ENTER:
            self._turn(min(worse))
        elif self.progress[0] >= LEAVE:
            self._turn(max(rank or 0 for rank in list(self._latest)[-LEAVE:]))
        return self.status

    def _worse(self, count: int = 0) -> list[int]:
        """Return the signs that are worse than the status among the latest `count`, or among all that are kept."""
        now = ORDER.index(self.status)
        return [rank for rank in list(self._latest)[-count:] if rank is not None and rank > now]

    def _turn(self, rank: int) -> None:
        self.status = ORDER[rank]
        self._latest.clear()


def grade(seconds: float, threshold: float) -> Status | None:
    """Say whether a time is fast (healthy), slow (degraded), or in between (None).

    Example:
        >>> [grade(seconds, 0.1) for seconds in (0.01, 0.08, 0.2)]
        [<Status.HEALTHY: 'healthy'>, None, <Status.DEGRADED: 'degraded'>]
    """
    if seconds > threshold:
        return Status.DEGRADED
    return Status.HEALTHY if seconds <= threshold * LEAVE_SHARE else None
