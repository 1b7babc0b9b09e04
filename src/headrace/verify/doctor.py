"""The quick part: what can be said of settings and server in a second or two, without load and without a write.

It opens the parts of an app that ask and answer, and not the app itself, which would take places in the budget of the
fleet and be refused where the fleet does not fit: that is when a doctor is needed most.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from headrace.app import Headrace
from headrace.census import Census
from headrace.errors import CommandRefused, ServerError, ServerTooOld, SettingError
from headrace.health.facts import explain
from headrace.ids import this_process
from headrace.resp import pack_command
from headrace.session import Session
from headrace.settings import VARIABLES, load_settings, source_of
from headrace.settings_auto import AUTO, first_maximum
from headrace.settings_env import mask_url
from headrace.sizing.demand import Demand, size_up
from headrace.sizing.facts import ask_fleet
from headrace.sizing.onlooker import few_connections, is_too_few
from headrace.store.budget import Budget
from headrace.store.versions import Versions
from headrace.verify.claims import ReliefOfRunning
from headrace.verify.claims_server import (
    Effective,
    ServerAnswers,
    ServerCarriesFleet,
    ServerIsThere,
    SettingsCount,
    judge_check,
)
from headrace.verify.claims_workers import WorkersLive, look_at_workers
from headrace.verify.settings_strays import find_strays

if TYPE_CHECKING:
    from headrace.settings import Settings
    from headrace.sizing.demand import Sizing
    from headrace.verify.outcome import Outcome

#: Longest wait for the first connection, seconds: the whole command takes under three.
OPEN_TIMEOUT: Final = 1.0
#: PINGs, one after the other, and how long they may take together, seconds.
PINGS: Final = 21
PINGS_WITHIN: Final = 0.5
PING: Final = pack_command("PING")


async def examine(url: str | None = None) -> list[Outcome]:
    """Look at settings and server; nothing is written, and no place in the fleet is taken.

    Args:
        url: Server; without one, the setting REDIS_URL, else the default server.

    Returns:
        One outcome for each check; a server that cannot be reached is one too.

    Raises:
        SettingError: A setting is malformed.
        ServerStartFailed: The default server could not be started.
    """
    configured = load_settings({"redis_url": url})
    census = Census()
    try:
        session = await open_small(configured.override({"redis_acquire_timeout": OPEN_TIMEOUT}), census)
    except ServerTooOld as error:
        return [ServerIsThere().refuted(str(error), "Upgrade the server.")]
    except ServerError as error:
        finding = explain(str(error))
        where = mask_url(configured.redis_url or "the default server")
        reason = f"{where}: {finding.reason}"
        return [judge_settings(configured), ServerIsThere().refuted(reason, finding.remedy)]
    try:
        return await _look(session, configured)
    finally:
        await session.close()
        census.check_closed("doctor")


def judge_settings(settings: Settings, real: tuple[int, int] | None = None) -> Outcome:
    """Judge the settings of the pool.

    Args:
        settings: What was configured.
        real: Minimum and maximum of the pool of a process that runs with them, None for none.
    """
    maximum, minimum = VARIABLES["REDIS_MAX_CONNECTIONS"], VARIABLES["REDIS_MIN_CONNECTIONS"]
    effective = Effective(
        settings.redis_max_connections,
        settings.redis_min_connections,
        (source_of(settings, maximum), source_of(settings, minimum)),
        real_minimum=None if real is None else real[0],
        real_maximum=None if real is None else real[1],
        strays=find_strays(),
    )
    return SettingsCount().judge(effective)


async def with_fleet(session: Session, settings: Settings) -> Settings:
    """Return the settings as the fleet completes them; as they are where that cannot be read."""
    try:
        version = await Versions(session.store).read(session.control)
        return settings.with_fleet(version.values, place="the settings of the fleet")
    except (CommandRefused, SettingError):
        return settings


async def size_fleet(parts: Session | Headrace, settings: Settings, demand: Demand, name: str) -> Sizing:
    """Size one more process of these settings beside those that run.

    Args:
        parts: What asks: an open session, or an open app.
        settings: Those of the process.
        demand: What it needs connections for.
        name: Of who asks, within this process.
    """
    fleet = await ask_fleet(parts.control, parts.store, Budget(parts.store), f"{this_process()}:{name}")
    maximum = first_maximum(settings.redis_max_connections, settings.redis_min_connections)
    return size_up(
        demand,
        fleet.members,
        fleet.server,
        minimum=min(settings.redis_min_connections, maximum),
        maximum=maximum,
        share_percent=settings.pool_fleet_share,
        strangers=fleet.strangers,
        clients_here=parts.pool.stats().total,
    )


async def open_small(configured: Settings, census: Census) -> Session:
    """Open the parts of an app with few connections, for looking on without disturbing.

    Args:
        configured: The settings; a cluster gets all the connections that they allow.
        census: Where everything live is entered.

    Raises:
        ServerError: The server could not be used.
        SettingError: A setting does not fit the server.
    """
    settings = few_connections(configured, 4)
    desk = Headrace(settings=configured)
    try:
        return await Session.open(settings, census, desk, desk.id)
    except SettingError as error:
        if not is_too_few(error, configured, settings):
            raise
        return await Session.open(configured, census, desk, desk.id)


async def _look(session: Session, configured: Settings) -> list[Outcome]:
    settings = await with_fleet(session, configured)
    demand = Demand(1, settings.queue_concurrency, auto=settings.redis_max_connections == AUTO)
    sizing = await size_fleet(session, settings, demand, "doctor")
    outcomes = [judge_settings(settings), ServerCarriesFleet().judge(sizing)]
    outcomes.append(WorkersLive().judge(await look_at_workers(session)))
    outcomes.append(ReliefOfRunning().judge(await session.fleet.look()))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < PINGS and time.perf_counter() - began < PINGS_WITHIN:
        sent = time.perf_counter()
        await session.control.roundtrip(PING, 1, timeout=OPEN_TIMEOUT)
        times.append(time.perf_counter() - sent)
    outcomes.append(ServerAnswers().judge(times))
    health = await session.monitor.health()
    return outcomes + [judge_check(check) for check in health.checks]
