"""The apps of a process that share its memory governor, and which of them drives it with its clock and its settings."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Final, Protocol

from headrace.memory.belongings import Owner
from headrace.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.clock import Alarm, Clock, Duty

logger = logging.getLogger(__name__)

_DEFAULTS: Final = Settings()
_NAMES: Final = ("memory_enabled", "memory_threshold", "memory_interval", "memory_limit_mb", "memory_collector")


class Member(Owner, Protocol):
    """An open app, as the governor sees it."""

    settings: Settings

    @property
    def clock(self) -> Clock:
        """The clock of the app."""
        ...


class Members:
    """Know the open apps, and run a callback by the clock of the first of them.

    Args:
        tick: The callback.
        driven: Called with whether any clock runs the callback now, when that changes.
    """

    def __init__(self, tick: Callable[[], None], driven: Callable[[bool], None]) -> None:
        self._tick = tick
        self._driven = driven
        self._lock = threading.RLock()
        self._members: dict[Member, asyncio.AbstractEventLoop] = {}
        self._driver: Member | None = None
        self._duty: Duty | None = None
        self._alarm: Alarm | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force: those of the app that drives, the defaults when none is open."""
        return self._driver.settings if self._driver is not None else _DEFAULTS

    def join(self, member: Member) -> None:
        """Add an app that opened; called on its loop."""
        with self._lock:
            self._members[member] = asyncio.get_running_loop()
            if self._driver is None:
                self._drive(member)
            else:
                self._compare(member)

    def leave(self, member: Member) -> None:
        """Forget an app that closes, called on its loop; another one drives if it was the one that did."""
        with self._lock:
            if self._members.pop(member, None) is None or member is not self._driver:
                return
            self._stop_driving()
            for successor, loop in self._members.items():
                # Why: a clock belongs to its loop, which may be that of another thread.
                if loop is asyncio.get_running_loop():
                    self._drive(successor)
                elif not loop.is_closed():
                    loop.call_soon_threadsafe(self._succeed, successor)
                return

    def renew(self) -> None:
        """Take a changed interval into account; called by the callback."""
        driver, duty = self._driver, self._duty
        if driver is not None and duty is not None and duty.interval != driver.settings.memory_interval:
            self._stop_driving()
            self._drive(driver)

    def sooner(self, wait: float) -> None:
        """Run the callback once more after this many seconds."""
        if self._alarm is not None and self._driver is not None:
            self._alarm.set(self._driver.clock.now() + wait)

    def publish(self, event: str, **fields: object) -> None:
        """Publish an event to every app."""
        for member in list(self._members):
            member.events.publish(event, **fields)

    def _drive(self, member: Member) -> None:
        self._driver = member
        clock = member.clock
        self._duty = clock.every("read memory", member.settings.memory_interval, self._tick, owner="memory")
        self._alarm = clock.alarm("read memory sooner", self._tick, owner="memory")
        self._driven(True)  # noqa: FBT003 - it has one meaning

    def _stop_driving(self) -> None:
        for runner in (self._duty, self._alarm):
            if runner is not None:
                runner.close()
        self._driver = self._duty = self._alarm = None
        self._driven(False)  # noqa: FBT003 - as above

    def _succeed(self, member: Member) -> None:
        with self._lock:
            if self._driver is None and member in self._members:
                self._drive(member)

    def _compare(self, member: Member) -> None:
        """Say that an app shares the governor of another one whose settings differ."""
        differing = [name for name in _NAMES if getattr(self.settings, name) != getattr(member.settings, name)]
        if differing:
            logger.warning(
                "memory belongs to the process: the settings of the app that opened first are in force",
                extra={"settings": ",".join(differing)},
            )
