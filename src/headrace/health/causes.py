"""What is amiss, in words: slow answers by their cause, no answer, a blocked loop, an exhausted lane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.health.facts import explain
from headrace.health.verdict import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.health.facts import Facts
    from headrace.health.probe import Split
    from headrace.pool.carrier import Carrier


def explain_slow(slow: Sequence[Split], threshold: float, *, told_apart: bool) -> Finding:
    """Say what made the latest answers slow.

    Args:
        slow: Where their time went, the latest last; one at least.
        threshold: Above it an answer is slow, seconds.
        told_apart: Whether the server tells enough to part it from the network.
    """
    last = slow[-1]
    figures = f"an answer took {_ms(last.latency)}, threshold {_ms(threshold)}"
    if not told_apart:
        return Finding(
            Status.DEGRADED,
            f"the server or the network is slow: {figures}; this user may not see INFO, so they cannot be told apart",
            "Allow INFO to the user of REDIS_URL, or look at both.",
            sure=False,
        )
    server, network = sum(split.server for split in slow), sum(split.network for split in slow)
    parts = f"{figures}, {_ms(last.server)} of it waiting for the server and {_ms(last.network)} on the way"
    if server >= network:
        return Finding(
            Status.DEGRADED,
            f"the server is slow: {parts}",
            "Find what keeps it busy: SLOWLOG GET, long scripts, its processor, swapping, the fork of a snapshot.",
            sure=False,
        )
    return Finding(
        Status.DEGRADED,
        f"the network is slow: {parts}",
        "Look at the way to the server: distance, packet loss, a proxy or tunnel in between, a full link.",
        sure=False,
    )


def explain_wait(link: Carrier, waited: float, facts: Facts | None) -> Finding:
    """Say why there is no answer after some seconds; `facts` is the latest INFO."""
    if not link.is_open:
        return explain(link.last_failure or f"the connection to {link.address} is being opened", facts)
    return Finding(
        Status.UNHEALTHY,
        f"the server does not answer: nothing for {waited:.1f} s on an open connection to {link.address}; "
        "it is paused, busy with one long command, or cut off",
        "Look at the server's process (stopped, CLIENT PAUSE, a long script or command) and at the way to it.",
    )


def explain_lag(lag: float, threshold: float) -> Finding:
    """Say that the loop of this process was blocked."""
    return Finding(
        Status.DEGRADED,
        f"event loop blocked: something in this process kept its event loop for {_ms(lag)}, threshold "
        f"{_ms(threshold)}; this is neither the server nor the network",
        "Find the task that the log names under 'loop stalled by a task', and let it wait with await, or run it as a "
        "plain function, which gets a thread, or with process=True.",
        sure=False,
    )


def explain_exhausted(lane: str, seconds: float) -> Finding:
    """Say that a lane of the pool has no connection left."""
    return Finding(
        Status.DEGRADED,
        f"the pool is exhausted: lane '{lane}' has had callers waiting for a connection for {seconds:.1f} s",
        "Raise REDIS_MAX_CONNECTIONS, or hold connections for less time; app.pool.stats() says who waits.",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"  # noqa: PLR2004 - two digits
