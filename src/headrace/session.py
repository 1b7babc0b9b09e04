"""What exists while an app is open: the server, the pool, the store, the clock and the links of the app itself."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final, Self

from headrace.census import Kind
from headrace.clock import Clock
from headrace.errors import HeadraceError
from headrace.fleet.desk import Fleet
from headrace.ids import client_name
from headrace.inbox import Inbox
from headrace.keys import inbox_channel
from headrace.pool.address import parse_address
from headrace.pool.confirm import confirm_by
from headrace.pool.link import Lane
from headrace.pool.pool import Pool
from headrace.pool.sentinel_watch import SentinelWatch
from headrace.producer import Sender
from headrace.resp import pack_command, parse_info
from headrace.server import check_server_version, ensure_server
from headrace.settings_auto import first_maximum
from headrace.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headrace.census import Census
    from headrace.job import Desk
    from headrace.pool.carrier import Carrier, Carriers
    from headrace.pool.cluster import Cluster
    from headrace.server import ServerUse
    from headrace.settings import Settings
    from headrace.sizing.sizer import Sizer
    from headrace.telemetry.exporter import Exporter


#: Told to listeners instead of a message when messages may have been lost.
REOPENED: Final = b"reopened"


class Session:
    """The open parts of one app.

    Args:
        settings: The settings of the app.
        census: Where everything live is entered.
        desk: What job handles ask of the app.
        app_id: Names the inbox of the app.
        server: The default server, when no URL is set.
        publish: Called with the name of an event and its fields.
    """

    def __init__(
        self,
        settings: Settings,
        census: Census,
        desk: Desk,
        app_id: str,
        server: ServerUse | None,
        publish: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        address = parse_address(server.url if server is not None else settings.redis_url or "")
        self._settings = settings
        self._census = census
        self._server = server
        if server is not None:
            self._server_entry = census.add(Kind.CONNECTION, "keeper of the default server", "app", server)
        self._reclaiming: set[str] = set()
        self._listeners: dict[str, list[Callable[[str, bytes], None]]] = {}
        self._desk = desk
        self._app_id = app_id
        self._publish = publish
        self._cluster: Cluster | None = None
        self.clock = Clock(census)
        self.pool = Pool(
            address,
            maximum=first_maximum(settings.redis_max_connections, settings.redis_min_connections),
            minimum=settings.redis_min_connections,
            census=census,
            client_name=client_name(),
            clock=self.clock,
            timeout=settings.redis_acquire_timeout,
            stats_interval=settings.pool_stats_interval,
            on_event=self._pool_event,
        )
        self.sizer: Sizer | None = None
        #: What tells monitoring of the app, once it was asked to.
        self.exporter: Exporter | None = None
        self._watch = SentinelWatch(address, census)
        self._wire(self.pool, Store)

    def _wire(self, links: Carriers, store: type[Store]) -> None:
        """Make what sends and hears, over the links of one server or of a cluster; nothing is sent yet."""
        # Why here: only an open app needs it, and it would cost each import of the package.
        from headrace.health.monitor import Monitor  # noqa: PLC0415 - as said above

        settings, where = self._settings, str(self.pool.address)
        self.links = links
        self.store = store(
            settings.prefix, where=where, keep_count=settings.keep_finished_count, keep=settings.keep_dead
        )
        self.user: Carrier = links.link(Lane.USER, "user", owner="app")
        self.control: Carrier = links.link(
            Lane.CONTROL, "control", owner="app", on_push=self._pushed, on_reopen=self._reopened, on_lost=self._lost
        )
        self.monitor = Monitor(
            self.control,
            self.clock,
            self._census,
            settings,
            publish=self._publish,
            pool_stats=self.pool.stats,
        )
        channel = inbox_channel(settings.prefix, self._app_id)
        self.inbox = Inbox(self.store, self.control, self.user, channel, self._census)
        # Why one: the channels that it listens on stay subscribed until the app closes.
        self.fleet = Fleet(self)
        self.sender = Sender(
            self.store,
            self._desk,
            timeout=settings.redis_acquire_timeout,
            lease_ran_out=self._reclaim,
            where=where,
            confirm=confirm_by(settings.wait_replicas, self.pool.address, settings.prefix),
        )

    @classmethod
    async def open(
        cls,
        settings: Settings,
        census: Census,
        desk: Desk,
        app_id: str,
        publish: Callable[..., None] = lambda *_, **__: None,
    ) -> Self:
        """Find or start the server, connect, and start the clock.

        Raises:
            ConnectionLost: The server could not be reached.
            ServerStartFailed: The default server could not be started.
            ServerTooOld: The server lacks what Headrace needs.
        """
        server: ServerUse | None = None
        if settings.redis_url is None:
            server = await census.in_thread(ensure_server, settings.data_dir, name="find the server", owner="app")
        session = cls(settings, census, desk, app_id, server, publish)
        try:
            if session.pool.address.seeds:
                await session._enter_cluster(session.pool.address.seeds)
            await session._check_server()
            session._watch.start()
            session.clock.start()
            session.monitor.start()
            await session.pool.begin(at_once="redis_min_connections" in settings.sources)
        except BaseException:
            await session.close()
            raise
        return session

    async def close(self) -> None:
        """Close everything; calls under way end with PoolClosed."""
        if self.sizer is not None:
            await self.sizer.close()
        if self.exporter is not None:
            await self.exporter.close()
        await self.inbox.close()
        await self.monitor.close()
        await self.clock.close()
        if self._cluster is not None:
            await self._cluster.close()
        await self._watch.close()
        await self.pool.close()
        if self._server is not None:
            await self._census.in_thread(self._server.release, name="release the server", owner="app")
            self._server_entry.close()

    async def retune(self, before: Settings, after: Settings) -> tuple[str, ...]:
        """Take settings that have changed; a part of the app that follows them."""
        self._settings = after
        self.sender.timeout = self.pool.timeout = after.redis_acquire_timeout
        self.store.keep(after.keep_finished_count, after.keep_dead)
        self.monitor.retune(after)
        if self.sizer is not None:
            return await self.sizer.retune(before, after)
        maximum = first_maximum(after.redis_max_connections, after.redis_min_connections)
        await self.pool.resize(maximum=maximum, minimum=min(after.redis_min_connections, maximum))
        return ()

    def _pool_event(self, name: str, facts: dict[str, object]) -> None:
        self.monitor.pool_event(name, facts)

    async def start_sizing(self, slots: Callable[[], Sequence[int]]) -> None:
        """Size the pool for workers with these slots; raises SettingError when the fleet does not fit the server."""
        from headrace.sizing.sizer import Sizer  # noqa: PLC0415 - as for the monitor

        self.sizer = Sizer(self.pool, self.store, self.control, self.clock, self._settings, self._app_id, slots)
        await self.sizer.start()

    async def announce(self) -> None:
        """Tell nobody: an app is in no registry, its workers are."""

    def figures(self) -> None:
        """Tell nothing: the figures of the pool are read from the pool."""

    async def connected(self) -> set[str] | None:
        """Return each process that has a connection to the server, as `host:pid`; None where that is not known."""
        if self._cluster is not None:
            # Why: one node does not know the clients of the others.
            return None
        from headrace.sizing.facts import connected_processes  # noqa: PLC0415 - few ask, and an import would pay for it

        return await connected_processes(self.control)

    async def listen(self, channels: Iterable[str], callback: Callable[[str, bytes], None]) -> None:
        """Call back with channel and message of these control channels."""
        names = list(channels)
        for name in names:
            self._listeners.setdefault(name, []).append(callback)
        await self.control.subscribe(names)

    def unlisten(self, callback: Callable[[str, bytes], None]) -> None:
        """Stop calling back."""
        for name in list(self._listeners):
            self._listeners[name] = [other for other in self._listeners[name] if other != callback]
            if not self._listeners[name]:
                del self._listeners[name]

    async def _check_server(self) -> None:
        timeout = self._settings.redis_acquire_timeout
        ask = pack_command("INFO", "server") + pack_command("INFO", "cluster")
        sent = time.perf_counter()
        text, mode = await self.control.roundtrip(ask, 2, timeout=timeout)
        # Why: a server that forbids INFO to this user answers with an error; then the scripts tell what it cannot do.
        if isinstance(text, (bytes, str)):
            self.monitor.calibrate(sent, time.perf_counter(), text)
            check_server_version(parse_info(text))
        if parse_info(mode).get("cluster_enabled") == "1" and self._cluster is None:
            await self._enter_cluster(await self._ask_for_nodes())

    async def _ask_for_nodes(self) -> Sequence[tuple[str, int]]:
        """Ask the server that the URL names, which is a node of a cluster, for the others."""
        from headrace.pool.slots import CLUSTER_SLOTS, Place, parse_slots  # noqa: PLC0415 - as in _enter_cluster

        here = Place(self.pool.address.host, self.pool.address.port)
        (slots,) = await self.control.roundtrip(CLUSTER_SLOTS, 1, timeout=self._settings.redis_acquire_timeout)
        known = parse_slots(slots, here).nodes if isinstance(slots, list) else ()
        return known or [here]

    async def _enter_cluster(self, seeds: Sequence[tuple[str, int]]) -> None:
        """Reach the nodes of a cluster instead of one server.

        Raises:
            ConnectionLost: No node told who serves which slots.
            SettingError: The pool is too small for the nodes, or replicas are to be waited for.
        """
        # Why here: only a cluster needs them, and they would cost each import of the package.
        from headrace.pool.cluster import CHECK_INTERVAL, Cluster  # noqa: PLC0415 - as said above
        from headrace.pool.slots import Place  # noqa: PLC0415 - as said above
        from headrace.store.clustered import ClusterStore  # noqa: PLC0415 - as said above

        address = dataclasses.replace(self.pool.address, seeds=tuple(seeds))
        confirm_by(self._settings.wait_replicas, address, self._settings.prefix)
        await self.monitor.close()
        await self.links.release(self.user)
        await self.links.release(self.control)
        self._cluster = Cluster(self.pool, [Place(*seed) for seed in seeds], census=self._census)
        await self._cluster.open(self._settings.redis_acquire_timeout)
        self._wire(self._cluster, ClusterStore)
        self.clock.every("look at the cluster", CHECK_INTERVAL, self._cluster.check, owner="pool")

    def _pushed(self, channel: bytes, message: bytes) -> None:
        name = channel.decode()
        if name == self.inbox.channel:
            self.inbox.deliver(message)
        else:
            for callback in self._listeners.get(name, ()):
                callback(name, message)

    def _lost(self) -> None:
        self.monitor.suspect()

    def _reopened(self) -> None:
        self.monitor.suspect()
        self.inbox.reopened()
        for name, callbacks in self._listeners.items():
            for callback in callbacks:
                callback(name, REOPENED)

    def _reclaim(self, queue: str) -> None:
        """Take back the jobs of lost workers in the background: an enqueue has seen that some lease ran out."""
        if queue in self._reclaiming:
            return
        self._reclaiming.add(queue)

        async def reclaim() -> None:
            try:
                await self.store.reclaim(self.control, queue, self._settings.max_stalled)
            finally:
                self._reclaiming.discard(queue)

        _ = self._census.create_task(reclaim(), name=f"reclaim {queue}", owner="app", expected=(HeadraceError,))
