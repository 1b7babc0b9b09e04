"""The settings of the fleet in one running process: told by a push, looked at again after each break, taken live.

Nothing polls. A change reaches a process as a message on one channel; after a break of the connection, in which some
may have been lost, the version is looked at once. A version with a bad value is refused whole: the process keeps its
settings, says so, and goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from headrace.errors import CommandRefused, ConnectionLost, HeadraceError, PoolClosed, SettingError
from headrace.fleet.figures import encode_figures
from headrace.fleet.log_reports import LogReports
from headrace.logs import change_logs
from headrace.resp import pack_command
from headrace.settings import SETTINGS, VARIABLES, Settings, source_of
from headrace.store.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.settings_fleet import Version
    from headrace.worker.host import Follower, Host

logger = logging.getLogger(__name__)

#: Told by a session instead of a message when messages may have been lost.
REOPENED: Final = b"reopened"
#: Longest text of a refusal that is told to others, characters.
REASON_LIMIT: Final = 300


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process has taken of the fleet's settings.

    Attributes:
        version: Number of the version, 0 for none.
        restart: Variables whose change waits for a restart.
        refused: Number of a later version that was refused, 0 for none.
        reason: Why.
    """

    version: int = 0
    restart: tuple[str, ...] = ()
    refused: int = 0
    reason: str = ""


@dataclass(slots=True)
class _Change:
    """What one version changes in this process."""

    before: Settings
    after: Settings
    restart: tuple[str, ...]
    kept: list[str] = field(default_factory=list)

    @property
    def changed(self) -> list[str]:
        """Each setting that has another value now: `QUEUE_CONCURRENCY 100 -> 5`."""
        found = []
        for setting in SETTINGS:
            old, new = getattr(self.before, setting.field), getattr(self.after, setting.field)
            if old != new:
                found.append(f"{setting.variable} {setting.write(old)} -> {setting.write(new)}")
        return found


class LiveSettings:
    """Keep the settings of one open app as the fleet says.

    Args:
        host: The app, whose `settings` are replaced.
        app_id: Names this process in its figures.
    """

    def __init__(self, host: Host, app_id: str) -> None:
        self.taken = Taken()
        self._host = host
        self._app_id = app_id
        self._own = host.settings
        self._versions = Versions(host.store)
        self._followers: list[Follower] = []
        self._log_reports = LogReports(host.clock)
        #: Settings that wait for a restart, as they were stored when the app opened.
        self._fixed: dict[str, str] = {}
        self._seen = 0
        self._stale = False
        self._catching_up: asyncio.Task[None] | None = None
        #: Answers under way, at most one to each kind of question.
        self._answering: dict[bytes, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Listen, and take the latest version; a bad one is left out with an error in the log.

        Raises:
            ConnectionLost: The server could not be reached.
        """
        self._log_reports.start()
        try:
            await self._host.listen((self._versions.channel,), self._told)
        except CommandRefused as error:
            # Why: an app that only enqueues works without channels, as it did before there were settings of a fleet.
            self._host.unlisten(self._told)
            logger.warning("changes of the fleet's settings are not heard", extra={"reason": str(error)[:REASON_LIMIT]})
        try:
            version = await self._versions.read(self._host.control)
        except (CommandRefused, SettingError) as error:
            self._refuse(0, error)
            return
        self._fixed = {name: text for name, text in version.values.items() if _changes(name) == "restart"}
        await self._take(version)
        if self.taken.refused:
            # Why: nothing of a bad version counts, or its bad value would have every later one refused too.
            self._fixed = {}

    async def close(self) -> None:
        """Stop listening, and give the app its own settings back."""
        self._log_reports.close()
        self._host.unlisten(self._told)
        for task in (self._catching_up, *self._answering.values()):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._host.settings = self._own
        self._renew_tasks()

    def follow(self, follower: Follower) -> None:
        """Tell a part of each change from now on; it has read the settings as they are."""
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        if follower in self._followers:
            self._followers.remove(follower)

    def _told(self, _channel: str, message: bytes) -> None:
        word, _, rest = message.partition(b" ")
        if message == REOPENED or (word == b"version" and rest != b"%d" % self._seen):
            self._stale = True
            if self._catching_up is None:
                self._catching_up = self._host.census_book.create_task(
                    self._catch_up(), name="take the fleet's settings", owner="settings", expected=(HeadraceError,)
                )
        elif word in (b"figures", b"snapshot") and word not in self._answering:
            self._answering[word] = self._host.census_book.create_task(
                self._answer(word, rest), name=f"tell {word.decode()}", owner="settings", expected=(HeadraceError,)
            )

    async def _catch_up(self) -> None:
        try:
            # Bound: once for each message or break; the link's own back-off and this wait keep it from spinning.
            while self._stale:
                self._stale = False
                try:
                    await self._take(await self._versions.read(self._host.control))
                except ConnectionLost:
                    self._stale = True
                    await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, no secret
                except (CommandRefused, SettingError) as error:
                    self._refuse(self._seen, error)
        finally:
            self._catching_up = None

    async def _take(self, version: Version) -> None:
        if version.number == self._seen:
            return
        self._seen = version.number
        place = f"version {version.number} of the fleet's settings (`headrace config set`, or `rollback`)"
        try:
            change = self._plan(version.values, place)
        except SettingError as error:
            self._refuse(version.number, error)
            await self._announce()
            return
        self._host.settings = change.after
        await self._retune(change)
        self.taken = Taken(version.number, change.restart)
        self._say(version, change)
        await self._announce()

    def _plan(self, values: Mapping[str, str], place: str) -> _Change:
        """Say what a version changes here; raises SettingError when any of its values is wrong."""
        before = self._host.settings
        # Why: all of it must be right, also what is not taken before a restart.
        wanted = before.with_fleet(values, place=place)
        live = {name: text for name, text in values.items() if _changes(name) == "live"}
        after = before.with_fleet({**self._fixed, **live}, place=place)
        waits = tuple(
            setting.variable for setting in SETTINGS if getattr(wanted, setting.field) != getattr(after, setting.field)
        )
        nearer = [
            f"{setting.variable} ({source_of(after, setting)})"
            for setting in SETTINGS
            if setting.variable in values and source_of(after, setting) != "fleet" and setting.variable not in waits
        ]
        return _Change(before, after, waits, nearer)

    async def _retune(self, change: _Change) -> None:
        """Hand the new settings to every part; one that fails is told of, and does not keep the others from theirs."""
        before, after = change.before, change.after
        change_logs(after)
        self._renew_tasks()
        for follower in list(self._followers):
            try:
                change.kept += await follower.retune(before, after)
            # The edge of a subscriber: what one part raises is recorded.
            except Exception:
                logger.exception("settings could not be taken by a part", extra={"part": repr(follower)})

    def _renew_tasks(self) -> None:
        """Let tasks read anew what their records are written by."""
        for name in self._host.tasks.names():
            task = self._host.tasks.get(name)
            if task is not None:
                task.renew()

    def _say(self, version: Version, change: _Change) -> None:
        changed = change.changed
        if not changed and not change.restart and not version.number:
            return
        facts = {
            "version": version.number,
            "author": version.author,
            "changed": ", ".join(changed) or "nothing",
            "kept": ", ".join(change.kept),
            "restart": ", ".join(change.restart),
        }
        logger.info("settings taken", extra={name: fact for name, fact in facts.items() if fact})
        if unknown := sorted(version.values.keys() - VARIABLES.keys()):
            logger.warning("settings of a newer version ignored", extra={"settings": ", ".join(unknown)})
        if self._host.events.wants("settings.changed"):
            self._host.events.publish(
                "settings.changed", version=version.number, changed=tuple(changed), restart=change.restart
            )

    def _refuse(self, number: int, error: HeadraceError) -> None:
        self.taken = Taken(self.taken.version, self.taken.restart, number, str(error)[:REASON_LIMIT])
        logger.error(
            "settings of the fleet refused; the old ones stay",
            extra={"version": number, "kept_version": self.taken.version, "reason": str(error)},
        )

    async def _announce(self) -> None:
        for follower in list(self._followers):
            await follower.announce()

    async def _answer(self, word: bytes, channel: bytes) -> None:
        try:
            if word == b"figures":
                answer = encode_figures(self._app_id, self._host.pool, self._followers)
            else:
                # Why here: few processes are ever looked at, and it would cost each import of the package.
                from headrace.fleet.snapshot import encode_snapshot, take_snapshot  # noqa: PLC0415 - as said above

                answer = encode_snapshot(take_snapshot(self._app_id, self._host, self._followers))
            await self._host.control.roundtrip(pack_command("PUBLISH", channel, answer), 1, timeout=5.0)
        except (ConnectionLost, PoolClosed) as error:
            logger.debug("figures could not be told", extra={"reason": str(error)[:REASON_LIMIT]})
        finally:
            self._answering.pop(word, None)


def _changes(variable: str) -> str:
    return VARIABLES[variable].change if variable in VARIABLES else ""
