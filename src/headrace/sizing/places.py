"""The places of one process in the budget of the fleet: taken at the start or refused, kept, changed, given back."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from headrace.errors import CommandRefused, HeadraceError, SettingError
from headrace.pool.cluster_link import ClusterLink
from headrace.settings import VARIABLES, source_of
from headrace.settings_auto import AUTO
from headrace.sizing.demand import LEAST_MAXIMUM, Limits, ServerFacts, limit_fleet, links_needed
from headrace.sizing.facts import ask_server, encode_demand, find_ghosts, read_members
from headrace.store.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.settings import Settings
    from headrace.sizing.demand import Demand, Member
    from headrace.sizing.facts import Fleet
    from headrace.store.store import Client, Store

logger = logging.getLogger(__name__)

#: The places of a process are kept for so long without a sign of it, seconds.
LEASE: Final = 180.0
#: Time for the last word of a process that ends, seconds.
GOODBYE: Final = 2.0
#: With `auto` and an unknown maxclients, all processes together have so many places.
UNKNOWN_LIMIT: Final = 1_000
#: Lost processes that are taken out of the budget at once; the rest leave with their lease.
MOST_GHOSTS: Final = 100


class Places:
    """Hold the places of one process.

    Args:
        store: Sends the script.
        control: Carries it.
        process: Name of the process in the budget: host, process id and app, parted by colons.

    Attributes:
        budget: The budget itself.
        held: Places that the process has, 0 before it took any.
    """

    def __init__(self, store: Store, control: Client, process: str) -> None:
        self.budget = Budget(store)
        self.process = process
        self.held = 0
        self._control = control
        self._server = ServerFacts()
        self._others = 0

    def limits(self, settings: Settings, clients_here: int) -> Limits | None:
        """Return what all processes may have together, as far as was seen last."""
        return limit_fleet(self._server, settings.pool_fleet_share, self._others + clients_here)

    async def take(self, fleet: Fleet, settings: Settings, demand: Demand, wanted: int, clients_here: int) -> int:
        """Take the first places; returns how many there were.

        A maximum that somebody has set is given in full or refused; the default one may be lowered to what is left.

        Args:
            fleet: The server and the other processes.
            settings: The settings of the app.
            demand: What the process uses connections for.
            wanted: Its maximum.
            clients_here: Connections that it has open now.

        Raises:
            SettingError: The fleet cannot fit.
            ConnectionLost: The connection broke.
        """
        self._server, self._others = fleet.server, fleet.places
        limits = self.limits(settings, clients_here)
        least = wanted
        if demand.auto or source_of(settings, VARIABLES["REDIS_MAX_CONNECTIONS"]) == "default":
            least = min(wanted, max(LEAST_MAXIMUM, links_needed(demand)))
        granted = await self._ask(demand, least, wanted, limits, first=True)
        if granted < 0 and await self.sweep(fleet.members):
            granted = await self._ask(demand, least, wanted, limits, first=True)
        if granted < 0 and limits is not None:
            raise self._cannot_fit(settings, wanted, least, limits, fleet)
        return granted if granted > 0 else least

    async def ask(self, settings: Settings, demand: Demand, least: int, wanted: int, clients_here: int) -> int:
        """Ask for other places, or for another lease of the same; returns how many there are.

        Raises:
            ConnectionLost: The connection broke.
        """
        if wanted > self.held:
            self._server, _ = await ask_server(self._control)
        return await self._ask(demand, least, wanted, self.limits(settings, clients_here), first=False)

    async def sweep(self, members: Sequence[Member] | None = None) -> int:
        """Take the places of processes back that ended without a word; returns how many there were.

        Raises:
            ConnectionLost: The connection broke.
        """
        # Why: a process of a cluster need not be connected to the node that is asked.
        if isinstance(self._control, ClusterLink):
            return 0
        if members is None:
            _, now_ms = await ask_server(self._control)
            members = read_members(await self.budget.claims(self._control), now_ms, self.process)
        ghosts = (await find_ghosts(self._control, members))[:MOST_GHOSTS]
        for ghost in ghosts:
            await self._control.roundtrip(self.budget.pack_goodbye(ghost), 1)
        if ghosts:
            logger.warning("places of lost processes taken back", extra={"processes": ",".join(ghosts[:5])})
        return len(ghosts)

    async def give_back(self) -> None:
        """Give all places back, unless the server is away; then the lease does."""
        if self.held == 0:
            return
        self.held = 0
        try:
            async with asyncio.timeout(GOODBYE):
                await self._control.roundtrip(self.budget.pack_goodbye(self.process), 1)
        except (HeadraceError, TimeoutError) as error:
            logger.debug("places are given back by their lease", extra={"reason": str(error)[:200]})

    async def _ask(self, demand: Demand, least: int, wanted: int, limits: Limits | None, *, first: bool) -> int:
        if limits is None:
            limit = UNKNOWN_LIMIT if demand.auto else None
        else:
            limit = limits.share if demand.auto else limits.most
        try:
            granted = await self.budget.ask(
                self._control,
                self.process,
                least=least,
                wanted=wanted,
                limit=limit,
                lease=LEASE,
                # Why: the least that an app can do with is never refused here, so that an operator can always look.
                first=first and wanted > LEAST_MAXIMUM,
                note=encode_demand(demand),
            )
        except CommandRefused as error:
            # Why: a key that something else has written to, or a user without the right, must stop no app.
            logger.warning("the fleet's budget cannot be used; it is tried again", extra={"reason": str(error)[:300]})
            return wanted if not demand.auto or first else max(least, self.held)
        self._others = granted.others_places
        self.held = max(0, granted.places)
        return granted.places

    def _cannot_fit(self, settings: Settings, wanted: int, least: int, limits: Limits, fleet: Fleet) -> SettingError:
        auto = settings.redis_max_connections == AUTO
        left = max(0, (limits.share if auto else limits.most) - self._others)
        source = source_of(settings, VARIABLES["REDIS_MAX_CONNECTIONS"])
        text = f"REDIS_MAX_CONNECTIONS={settings.redis_max_connections}: the fleet cannot fit. The server accepts "
        text += f"{fleet.server.maxclients} clients; "
        text += f"the others of the fleet ({len(fleet.members)}) may open {self._others}, "
        text += (
            f"{limits.outside} are clients of others, and {limits.reserve} places are kept free, so that {left} are "
        )
        text += f"left for the {least} of this process. "
        if auto:
            text += "Run fewer processes, raise HEADRACE_POOL_FLEET_SHARE, or raise maxclients of the server."
        else:
            lower = f"Lower it to at most {left}" if left >= LEAST_MAXIMUM else "Lower it in the other processes"
            text += f"{lower}, set it to auto, run fewer processes, or raise maxclients of the server."
        return SettingError(
            text,
            variable="REDIS_MAX_CONNECTIONS",
            value=str(settings.redis_max_connections),
            expected=f"at most {left}" if wanted > left else "",
            source=source,
        )
