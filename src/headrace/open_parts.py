"""The parts of an open app as its attributes. The session that holds them is loaded when the app opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import UsageError
from headrace.memory.process import governor

if TYPE_CHECKING:
    import weakref

    from headrace.census import Census
    from headrace.clock import Clock
    from headrace.events import EventBus
    from headrace.fleet.desk import Fleet
    from headrace.health.monitor import Monitor
    from headrace.memory.governor import Governor
    from headrace.pool.carrier import Carrier, Carriers
    from headrace.pool.pool import Pool
    from headrace.session import Session
    from headrace.store.store import Store
    from headrace.task import Registry
    from headrace.telemetry.exporter import Exporter
    from headrace.worker.worker import Worker


class OpenParts:
    """The parts of an open app as its attributes; each raises UsageError when the app is not open."""

    _session: Session | None
    _census: Census
    _workers: weakref.WeakSet[Worker]
    events: EventBus
    tasks: Registry

    @property
    def _open_session(self) -> Session:
        if self._session is None:
            text = "The app is not open. Use it inside `async with app:`; in a worker, inside an `@app.lifespan`."
            raise UsageError(text)
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

    @property
    def monitor(self) -> Monitor:
        """What knows how the server and the loop are."""
        return self._open_session.monitor

    @property
    def census_book(self) -> Census:
        """Where everything live is entered."""
        return self._census

    @property
    def exporter(self) -> Exporter:
        """What tells monitoring of the app."""
        session = self._open_session
        if session.exporter is None:
            # Why here: only a process that is scraped needs it.
            from headrace.telemetry.exporter import Exporter  # noqa: PLC0415 - as said above

            session.exporter = Exporter(self, lambda: list(self._workers))
        return session.exporter

    async def metrics(self) -> str:
        """Return the figures of this process and of all queues in the text format of Prometheus.

        The queues are asked for at most every 5 s, and waited for half a second; `headrace_server_up` is 0 when the
        server did not tell. Serve it as `text/plain; version=0.0.4`; see docs/metrics.md.

        Raises:
            UsageError: The app is not open, or prometheus-client is not installed.
        """
        return await self.exporter.text()
