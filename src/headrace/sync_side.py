"""What synchronous code of an app uses: one connection, made on first use, shared by threads, new in a forked child."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from headrace.census import Kind
from headrace.ids import client_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.census import Census
    from headrace.job import Desk, Job
    from headrace.settings import Settings
    from headrace.task import Batch


class SyncSide:
    """What synchronous code of one app uses: one connection, made on first use, shared by all threads.

    Args:
        settings: Returns the settings of the app.
        desk: What job handles ask of the app.
        census: Where the connection is entered.
    """

    def __init__(self, settings: Callable[[], Settings], desk: Desk, census: Census) -> None:
        self._settings = settings
        self._desk = desk
        self._census = census
        self._session: _SyncSession | None = None
        self._lock = threading.Lock()
        _sync_sides.add(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, or it was there and is made again."""
        return self._session is not None

    def send(self, batch: Batch) -> list[Job[Any]]:
        """Send a batch; raises ConnectionLost or CommandRefused."""
        with self._lock:
            if self._session is None:
                self._session = _SyncSession(self._settings(), self._desk, self._census)
            session = self._session
            session.users += 1
        try:
            return session.sender.send_sync(session.link, batch)
        finally:
            with self._lock:
                session.users -= 1
                is_last = session.users == 0 and session is not self._session
            if is_last:
                session.close()

    def close(self) -> None:
        """Close the connection, at the end of the last call that uses it; the next call makes another."""
        with self._lock:
            session, self._session = self._session, None
            is_used = session is not None and session.users > 0
        if session is not None and not is_used:
            session.close()

    def begin_in_child(self) -> None:
        """Forget the threads of the parent, which a forked child does not have."""
        self._lock = threading.Lock()
        if self._session is not None:
            self._session.users = 0


class _SyncSession:
    """One blocking link, and the default server if no URL is set."""

    def __init__(self, settings: Settings, desk: Desk, census: Census) -> None:
        # Why here: an app that enqueues from no synchronous code does not need them.
        from headrace.pool.address import parse_address  # noqa: PLC0415 - as said above
        from headrace.pool.confirm import confirm_by  # noqa: PLC0415 - as said above
        from headrace.pool.sync_cluster import SyncRoute  # noqa: PLC0415 - as said above
        from headrace.producer import Sender  # noqa: PLC0415 - as said above
        from headrace.server import ensure_server  # noqa: PLC0415 - as said above
        from headrace.store.store import Store  # noqa: PLC0415 - as said above

        self._server = ensure_server(settings.data_dir) if settings.redis_url is None else None
        address = parse_address(self._server.url if self._server is not None else settings.redis_url or "")
        self.users = 0
        name = f"{client_name()}:sync"
        self.link = SyncRoute(address, name=name)
        self._entries = [census.add(Kind.CONNECTION, name, "enqueue_sync", self.link)]
        if self._server is not None:
            self._entries.append(census.add(Kind.CONNECTION, "keeper of the default server", "enqueue_sync"))
        # Why: a lost lease is left to workers here; nothing of a synchronous call may go on in the background.
        self.sender = Sender(
            Store(settings.prefix, where=str(address)),
            desk,
            timeout=settings.redis_acquire_timeout,
            lease_ran_out=lambda _: None,
            where=str(address),
            confirm=confirm_by(settings.wait_replicas, address, settings.prefix),
        )

    def close(self) -> None:
        """Close the link and release the server."""
        self.link.close()
        if self._server is not None:
            self._server.release()
        for entry in self._entries:
            entry.close()


_sync_sides: weakref.WeakSet[SyncSide] = weakref.WeakSet()


def _begin_in_child() -> None:
    for side in list(_sync_sides):
        side.begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)
