"""The parts of an open app as its attributes. The session that holds them is loaded when the app opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import UsageError
from headrace.memory.process import governor

if TYPE_CHECKING:
    from headrace.clock import Clock
    from headrace.fleet.desk import Fleet
    from headrace.memory.governor import Governor
    from headrace.pool.carrier import Carrier, Carriers
    from headrace.pool.pool import Pool
    from headrace.session import Session
    from headrace.store.store import Store


class OpenParts:
    """The parts of an open app as its attributes; each raises UsageError when the app is not open."""

    _session: Session | None

    @property
    def _open_session(self) -> Session:
        if self._session is None:
            raise UsageError("The app is not open. Use it inside `async with app:`.")
        return self._session

    @property
    def pool(self) -> Pool:
        """The pool of the app."""
        return self._open_session.pool

    @property
    def memory(self) -> Governor:
        """The memory governor, which all apps of a process share."""
        _ = self._open_session
        return governor()

    @property
    def store(self) -> Store:
        """The store of the app."""
        return self._open_session.store

    @property
    def clock(self) -> Clock:
        """The clock of the app."""
        return self._open_session.clock

    @property
    def fleet(self) -> Fleet:
        """The settings that are stored for all processes, to be read and changed."""
        return self._open_session.fleet

    @property
    def links(self) -> Carriers:
        """What gives links to the server, or to the nodes of a cluster."""
        return self._open_session.links

    @property
    def control(self) -> Carrier:
        """The control link of the app."""
        return self._open_session.control

    @property
    def user(self) -> Carrier:
        """The user link of the app."""
        return self._open_session.user
