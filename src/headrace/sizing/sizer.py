"""The size of one pool while its app is open.

It has to fit at the start, its places in the fleet are kept, and with `auto` it follows the load. Two duties of the
app's clock do it: one keeps the places under their lease; the other, only with `auto`, looks at the figures of the
pool, which asks the server nothing.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from headrace.errors import ConnectionLost, PoolClosed
from headrace.ids import this_process
from headrace.pool.cluster_link import ClusterLink
from headrace.pool.lanes import MOST_CONNECTIONS, Lane, app_shares
from headrace.settings_auto import AUTO, first_maximum
from headrace.sizing.auto import AutoOptions, Change, Controller, Window
from headrace.sizing.demand import LEAST_MAXIMUM, Demand, Sizing, links_needed, size_up
from headrace.sizing.facts import ask_fleet, measure_borrowed
from headrace.sizing.places import Places
from headrace.sizing.report import log_resize, log_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headrace.clock import Clock, Duty
    from headrace.pool.figures import PoolStats
    from headrace.settings import Settings
    from headrace.sizing.facts import Fleet
    from headrace.store.store import Client, Store

logger = logging.getLogger(__name__)

#: Each sign of life for the places of a process comes after this, seconds: a third of their lease.
RENEW_INTERVAL: Final = 60.0
#: Least connections of the user lane with `auto`: one for the app, one to lend.
LEAST_USER: Final = 2
#: After the fleet's budget had no place left, it is asked again after this, seconds.
ASK_AGAIN: Final = 5.0
#: Connections of the control lane with `auto`: that of the app, and one for a client of the user's.
CONTROL_PLACES: Final = 2
#: Before that, lost processes are looked for, at most once in this time, seconds: it reads the whole CLIENT LIST.
SWEEP_AGAIN: Final = 60.0


class Lending(Protocol):
    """A pool whose size can be changed."""

    def stats(self) -> PoolStats:
        """Return the figures."""
        ...

    async def resize(
        self, maximum: int | None = None, minimum: int | None = None, lanes: Mapping[str, int] | None = None
    ) -> None:
        """Change the limits."""
        ...


class Sizer:
    """Size one pool.

    Args:
        pool: The pool.
        store: Sends the script of the budget.
        control: Carries it.
        clock: The app's clock.
        settings: The settings of the app.
        app_id: Names the app within the process.
        slots: Returns the slots of each worker that runs in this process.
        options: How quickly `auto` follows the load.
        place: Host and process id, parted by a colon; those of this process without any.

    Attributes:
        maximum: The maximum that the pool has now.
    """

    def __init__(
        self,
        pool: Lending,
        store: Store,
        control: Client,
        clock: Clock,
        settings: Settings,
        app_id: str,
        slots: Callable[[], Sequence[int]] = lambda: (),
        *,
        options: AutoOptions | None = None,
        place: str = "",
    ) -> None:
        self.maximum = pool.stats().maximum
        self._pool = pool
        self._store = store
        self._control = control
        self._clock = clock
        self._settings = settings
        self._slots = slots
        self._options = options or AutoOptions()
        self._places = Places(store, control, f"{place or this_process()}:{app_id}")
        #: The lanes of the app's own parts, as the pool has them.
        self._engine = _engine_shares(self.maximum)
        self._controller: Controller | None = None
        self._before: tuple[float, PoolStats] = (0.0, pool.stats())
        self._ask_after = self._sweep_after = 0.0
        self._renewal: Duty | None = None
        self._following: Duty | None = None

    @property
    def is_auto(self) -> bool:
        """Whether the maximum follows the load."""
        return self._settings.redis_max_connections == AUTO

    async def start(self) -> Sizing:
        """Take the places of this process in the fleet, say in the log what came of it, and keep them.

        Raises:
            SettingError: The fleet cannot fit: there are not enough places left on the server.
            ConnectionLost: The server could not be reached.
        """
        fleet = await self._look()
        wanted, demand = self.maximum, self._demand()
        granted = await self._places.take(fleet, self._settings, demand, wanted, self._clients_here())
        if granted != wanted or self.is_auto:
            await self._resize(granted, "the fleet leaves no more places")
        sizing = self._size_up(fleet)
        log_size(sizing, self._settings)
        self._renewal = self._clock.every("renew places", RENEW_INTERVAL, self.renew, owner="sizing")
        self._follow_load()
        return sizing

    async def close(self) -> None:
        """Change nothing any more, and give the places back."""
        for duty in (self._renewal, self._following):
            if duty is not None:
                duty.close()
        self._renewal = self._following = None
        await self._places.give_back()

    async def sizing(self) -> Sizing:
        """Look at the server and the fleet again, and hold the demand of now against them.

        Raises:
            ConnectionLost: The server could not be reached.
        """
        return self._size_up(await self._look())

    async def retune(self, before: Settings, after: Settings) -> tuple[str, ...]:
        """Take settings that have changed; returns what cannot count in full here, with the reason in brackets."""
        self._settings = after
        wanted = _first(after)
        same = before.redis_max_connections == after.redis_max_connections
        if same and before.redis_min_connections == after.redis_min_connections:
            return ()
        if self.is_auto:
            # Why: what the load has found so far is a better start than the first maximum.
            wanted = max(wanted, self.maximum) if same else max(after.redis_min_connections, self.maximum)
        granted = wanted
        if wanted > self._places.held:
            granted = await self._ask(least=min(wanted, self.maximum), wanted=wanted)
        await self._resize(granted, "its setting has changed", minimum=min(after.redis_min_connections, granted))
        self._follow_load()
        return () if granted >= wanted else (f"REDIS_MAX_CONNECTIONS (the fleet leaves {granted} places)",)

    async def renew(self) -> None:
        """Extend the lease of the places, take more when too few were left before, or give back a surplus."""
        wanted = self.maximum if self.is_auto else _first(self._settings)
        least = max(LEAST_MAXIMUM, links_needed(self._demand())) if self.is_auto else self.maximum
        try:
            granted = await self._ask(least=min(least, wanted), wanted=max(wanted, self._surplus()))
            if (granted := min(granted, wanted)) != self.maximum:
                reason = "places have come free" if granted > self.maximum else "the fleet leaves no more places"
                await self._resize(granted, reason)
        except (ConnectionLost, PoolClosed) as error:
            logger.warning("places could not be renewed; it is tried again", extra={"reason": str(error)[:300]})

    async def follow(self) -> None:
        """Look at the figures since the last time, and change the maximum when they say so; for `auto`."""
        controller = self._controller
        if controller is None:
            return
        now, stats = time.monotonic(), self._pool.stats()
        (before, earlier), self._before = self._before, (now, stats)
        window = read_window(earlier, stats, now - before)
        engine = self._engine_wanted()
        used = sum(engine.values())
        lowest = max(LEAST_USER, self._settings.redis_min_connections - used)
        change = controller.decide(window, min(lowest, MOST_CONNECTIONS - used), MOST_CONNECTIONS - used)
        if change is None and engine != self._engine:
            change = Change(controller.size, "its workers have changed")
        try:
            if change is not None and (used + change.size <= self.maximum or now >= self._ask_after):
                await self._apply(change, window, used, now)
            elif self._places.held > max(self.maximum, self._clients_here()):
                await self.renew()
        except (ConnectionLost, PoolClosed) as error:
            self._ask_after = now + ASK_AGAIN
            logger.warning("pool could not be resized; it is tried again", extra={"reason": str(error)[:300]})

    async def _apply(self, change: Change, window: Window, used: int, now: float) -> None:
        wanted, reason = used + change.size, change.reason
        if wanted > self.maximum:
            # Why: places come first and connections after them, so that the fleet never has more than its budget.
            granted = await self._ask(least=self.maximum, wanted=wanted)
            if granted < wanted and now >= self._sweep_after:
                self._sweep_after = now + SWEEP_AGAIN
                granted = await self._ask(least=granted, wanted=wanted) if await self._places.sweep() else granted
            if granted < wanted:
                self._ask_after = now + ASK_AGAIN
                reason += f"; the fleet leaves {granted} of {wanted} places"
            if granted <= self.maximum:
                logger.warning("pool cannot grow", extra={"maximum": self.maximum, "wanted": wanted, "reason": reason})
                return
            wanted = granted
        await self._resize(wanted, reason, window=window)

    async def _ask(self, *, least: int, wanted: int) -> int:
        return await self._places.ask(self._settings, self._demand(), least, wanted, self._clients_here())

    async def _resize(
        self, maximum: int, reason: str, *, minimum: int | None = None, window: Window | None = None
    ) -> None:
        before, shares = self.maximum, self._shares(maximum)
        await self._pool.resize(maximum=maximum, minimum=minimum, lanes={str(lane): n for lane, n in shares.items()})
        self.maximum = maximum
        if self._controller is not None:
            self._controller.applied(shares[Lane.USER])
        if maximum != before:
            log_resize(before, maximum, reason, window)

    def _shares(self, maximum: int) -> dict[Lane, int]:
        """Divide a maximum: with `auto`, the app's own parts get what they need, and users the rest."""
        engine = self._engine_wanted()
        user = maximum - sum(engine.values())
        if self.is_auto and user >= LEAST_USER:
            self._engine = engine
            return {**engine, Lane.USER: user}
        self._engine = _engine_shares(maximum)
        return app_shares(maximum)

    def _engine_wanted(self) -> dict[Lane, int]:
        """Return what the app's own parts need with `auto`, with room for one more worker to start."""
        if isinstance(self._control, ClusterLink):
            # Why: there each of them has a connection to each node, and nodes come and go.
            return self._engine
        workers = 1 + len(self._slots())
        return {Lane.CONTROL: CONTROL_PLACES, Lane.BLOCKING: workers, Lane.JOBS: workers}

    def _follow_load(self) -> None:
        """Begin or end to follow the load, as the settings say."""
        if self.is_auto and self._controller is None:
            self._controller = Controller(self.maximum - sum(self._engine.values()), self._options)
            self._before = (time.monotonic(), self._pool.stats())
            self._following = self._clock.every("size the pool", self._options.interval, self.follow, owner="sizing")
        elif not self.is_auto and self._following is not None:
            self._following.close()
            self._following = self._controller = None

    async def _look(self) -> Fleet:
        return await ask_fleet(self._control, self._store, self._places.budget, self._places.process)

    def _size_up(self, fleet: Fleet) -> Sizing:
        return size_up(
            self._demand(),
            fleet.members,
            fleet.server,
            minimum=min(self._settings.redis_min_connections, self.maximum),
            maximum=self.maximum,
            share_percent=self._settings.pool_fleet_share,
            strangers=fleet.strangers,
            clients_here=self._clients_here(),
        )

    def _demand(self) -> Demand:
        slots = self._slots()
        return Demand(len(slots), sum(slots), measure_borrowed(self._pool.stats()), auto=self.is_auto)

    def _clients_here(self) -> int:
        stats = self._pool.stats()
        return stats.total + stats.opening

    def _surplus(self) -> int:
        """Places that are still needed for connections above a maximum that was lowered."""
        return min(self._clients_here(), self._places.held)


def read_window(before: PoolStats, now: PoolStats, interval: float) -> Window:
    """Return what happened between two looks at the figures of a pool.

    The waits of a pool are those of callers that borrow, so that their number is that of calls. Their figures cover the
    last minute or two and begin anew each minute, when a difference may be negative; it then counts as none.
    """
    interval = max(interval, 0.001)
    ended = now.wait.count - before.wait.count - (now.timeouts_total - before.timeouts_total)
    calls = max(0, ended if ended >= 0 else now.calls_total - before.calls_total)
    waited = max(0.0, now.wait.count * now.wait.mean - before.wait.count * before.wait.mean)
    lane = now.lanes.get(Lane.USER)
    return Window(
        interval=interval,
        arrivals=calls / interval,
        service=now.response.mean,
        wait=waited / calls if calls else 0.0,
        in_use=lane.active if lane is not None else 0,
        waiting=lane.waiting if lane is not None else 0,
        full=now.total + now.opening >= now.maximum or (lane is not None and lane.active >= lane.share),
        wait_p99=now.wait.p99,
        waiting_highest=lane.waiting_highest if lane is not None else 0,
    )


def _engine_shares(maximum: int) -> dict[Lane, int]:
    """Return the shares of the lanes of the app's own parts."""
    return {lane: share for lane, share in app_shares(maximum).items() if lane is not Lane.USER}


def _first(settings: Settings) -> int:
    return first_maximum(settings.redis_max_connections, settings.redis_min_connections)
