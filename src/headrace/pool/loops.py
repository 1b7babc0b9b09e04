"""What pools share with their event loop and their process: the clock of a loop, and what a forked child does first."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, ParamSpec, Protocol

from headrace.census import Census
from headrace.clock import Clock
from headrace.pool.transport import blind, file_numbers

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from redis.asyncio.connection import AbstractConnection


P = ParamSpec("P")


class Forkable(Protocol):
    """Something that must not use the sockets of its parent."""

    def abandon(self) -> None:
        """Forget them, in the child."""
        ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
#: Connections of the parent, kept in a child so that nothing finalises their transports on a loop that is not theirs.
#: Bounded by what the parent had open at the fork.
_orphans: list[AbstractConnection] = []
_clocks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Clock] = weakref.WeakKeyDictionary()


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
    """Return the clock that all pools of a running loop share which belong to no app; without work it has no timer."""
    clock = _clocks.get(loop)
    if clock is None:
        # Why: a clock holds its loop, so that the weak key alone would not let go of either.
        for old in [old for old in _clocks if old.is_closed()]:
            del _clocks[old]
        clock = _clocks[loop] = Clock(Census(), "pool clock")
        clock.start()
    return clock


def weakly(method: Callable[P, None]) -> Callable[P, None]:
    """Return a function that calls a bound method as long as its object lives, and does not keep it alive."""
    reference = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        living = reference()
        if living is not None:
            living(*args, **kwargs)

    return call


def watch_forks(pool: Forkable) -> None:
    """Have a pool forget its parent's sockets in every forked child."""
    _watched.add(pool)


def keep_blind(connections: Iterable[AbstractConnection]) -> None:
    """Cut a forked child off from connections of its parent, and keep their objects."""
    kept = list(connections)
    blind(file_numbers(kept))
    _orphans.extend(kept)


def _abandon_all() -> None:
    for pool in list(_watched):
        pool.abandon()


os.register_at_fork(after_in_child=_abandon_all)
