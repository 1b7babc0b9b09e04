"""What running processes tell of themselves when they are asked: how their pools and slots do, right now.

Nothing is sent while nobody asks. Whoever asks names a channel; every process answers there once, within a round trip.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headrace.worker.host import Follower


class Figures(msgspec.Struct, frozen=True):
    """One process at one moment.

    Attributes:
        app: Id of the app.
        host: Name of the machine.
        pid: Process id.
        pool_maximum: Most connections of its pool.
        pool_total: Those that it holds.
        pool_waiting: Calls that wait for a connection.
        workers: Workers that run in it.
        concurrency: Their slots.
        running: Jobs that run in them.
        buffered: Jobs that they hold ahead.
    """

    app: str
    host: str
    pid: int
    pool_maximum: int = 0
    pool_total: int = 0
    pool_waiting: int = 0
    workers: int = 0
    concurrency: int = 0
    running: int = 0
    buffered: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Figures)


def total_figures(followers: Iterable[Follower]) -> Counter[str]:
    """Count the workers of this process, and add up their figures."""
    told = [figures for follower in followers if (figures := follower.figures()) is not None]
    totals = Counter(workers=len(told))
    for figures in told:
        totals.update(figures)
    return totals


def encode_figures(app_id: str, pool: Any, followers: Iterable[Follower]) -> bytes:
    """Write the figures of this process.

    Args:
        app_id: Id of the app.
        pool: Its pool.
        followers: Its running workers.
    """
    stats = pool.stats()
    totals = total_figures(followers)
    return _encoder.encode(
        Figures(
            app=app_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            pool_maximum=stats.maximum,
            pool_total=stats.total,
            # Why not the highest of the last minute: it would count what was before a change as after it.
            pool_waiting=stats.waiting,
            workers=totals["workers"],
            concurrency=totals["concurrency"],
            running=totals["running"],
            buffered=totals["buffered"],
        )
    )


def decode_figures(message: bytes) -> Figures | None:
    """Read what a process told; None when it is nothing of ours."""
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
