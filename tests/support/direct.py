"""The store driven from synchronous code: one blocking connection, and coroutines that never wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from headrace.pool.sync_link import SyncLink

T = TypeVar("T")


class Direct:
    """A client for `headrace.store.store.Store` whose answers are there at once."""

    def __init__(self, link: SyncLink) -> None:
        self.link = link

    async def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        return self.link.roundtrip(payload, count)


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits to its end."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise AssertionError("the coroutine waits for something")
