"""Read and write the settings of the fleet, in versions: what `headrace config` does, for programs too."""

from __future__ import annotations

import asyncio
import getpass
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from headrace.errors import OptionError, SettingError
from headrace.fleet.figures import Figures, decode_figures
from headrace.ids import random_name
from headrace.keys import inbox_channel
from headrace.resp import pack_command
from headrace.settings_fleet import (
    AUTHOR_LIMIT,
    NO_VERSION,
    Version,
    check_values,
    encode_version,
)
from headrace.sizing.facts import UNSEEN
from headrace.store.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Protocol

    from headrace.fleet.snapshot import Snapshot
    from headrace.pool.carrier import Carrier
    from headrace.store.replies import WorkerFacts
    from headrace.store.store import Store

    class Office(Protocol):
        """What the desk needs of an open app."""

        @property
        def store(self) -> Store:
            """Sends the calls."""

        @property
        def control(self) -> Carrier:
            """Carries them."""

        async def listen(self, channels: Iterable[str], callback: Callable[[str, bytes], None]) -> None:
            """Call back with each message of these channels."""

        def unlisten(self, callback: Callable[[str, bytes], None]) -> None:
            """Call back no more."""


A = TypeVar("A", "Figures", "Snapshot")

#: Between two looks at what workers have taken, seconds: an operator's wait, not a worker's.
LOOK: Final = 0.05


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a version got.

    Attributes:
        seconds: Time until the last worker that took it had done so, or until the wait ended.
        taken: Workers that have taken it, with what they say of themselves.
        missing: Workers that have not, or refused it.
    """

    seconds: float
    taken: dict[str, WorkerFacts]
    missing: dict[str, WorkerFacts]


class Fleet:
    """The settings that are stored in Redis for all processes below one prefix.

    Args:
        office: The open app.
    """

    def __init__(self, office: Office) -> None:
        self._office = office
        self._versions = Versions(office.store)
        # Why one: a channel stays subscribed until the app closes.
        self._channel = inbox_channel(office.store.prefix, f"figures-{random_name(10)}")

    async def read(self, number: int = 0) -> Version:
        """Return a version; 0 for the latest, whose number is 0 when nothing was ever stored.

        Raises:
            SettingError: There is no such version any more, or it cannot be read.
        """
        return await self._versions.read(self._office.control, number)

    async def history(self) -> list[Version]:
        """Return the versions that are kept, at most 100, the latest first."""
        return await self._versions.history(self._office.control)

    async def store(
        self,
        values: Mapping[str, str],
        *,
        base: Version,
        author: str | None = None,
        note: str = "",
        place: str = "the call",
        restores: int = -1,
    ) -> Version:
        """Store these settings, and no others, as the next version, and tell every running process.

        Args:
            values: Variable to text, in the unit of the variable.
            base: The latest version, as it was read; it is what makes two writers find out about each other.
            author: Who stores it; None for the user of this process at this machine.
            note: Why, at most 500 characters.
            place: Where a wrong value can be corrected, for errors.
            restores: The earlier version whose values these are.

        Raises:
            SettingError: A name is no setting, or belongs to one process, or a value is out of its bounds.
            SettingsConflict: Another version was stored since; nothing was written.
            OptionError: The author or the note is too long.
        """
        author = default_author() if author is None else author
        checked = check_values(values, place=place)
        body = encode_version(checked, author, note, restores)
        number, at_ms = await self._versions.write(self._office.control, base.number, body)
        return Version(number, checked, at_ms, author, note, restores)

    async def change(
        self, changes: Mapping[str, str | None], *, base: Version, author: str | None = None, note: str = "", place: str
    ) -> Version:
        """Store the settings of a version with some changed; None takes one out. Raises as `store`."""
        values = {name: text for name, text in base.values.items() if name not in changes}
        values.update({name: text for name, text in changes.items() if text is not None})
        return await self.store(values, base=base, author=author, note=note, place=place)

    async def roll_back(
        self, number: int | None = None, *, base: Version, author: str | None = None, note: str = ""
    ) -> Version:
        """Store the values of an earlier version as the next one.

        Args:
            number: The version; 0 for none of the fleet's settings. None for the one before the latest; called again,
                it goes one further back.
            base: The latest version, as it was read.
            author: As for `store`.
            note: As for `store`.

        Raises:
            SettingError: There is no such version any more.
            SettingsConflict: Another version was stored since; nothing was written.
        """
        if number is None:
            if not base.number:
                raise SettingError(
                    "there is no version to go back from: the fleet has never stored settings. `headrace config set` "
                    "stores the first.",
                    source="fleet",
                )
            number = max(0, base.origin - 1)
        earlier = await self.read(number) if number else NO_VERSION
        note = note or f"back to version {number}"
        # Why `origin`: the next call without a number goes back from where these values were stored first.
        return await self.store(
            earlier.values,
            base=base,
            author=author,
            note=note,
            place=f"version {number} of the fleet's settings",
            restores=earlier.origin,
        )

    async def workers(self) -> dict[str, WorkerFacts]:
        """Return the workers that have registered lately, by id."""
        found = await self._office.store.workers(self._office.control)
        (reply,) = await self._office.control.roundtrip(pack_command("TIME"), 1)
        now = int(reply[0])
        return {name: facts for name, facts in sorted(found.items()) if now - facts.seen <= UNSEEN}

    async def wait_until_taken(self, number: int, *, timeout: float = 5.0) -> Reach:
        """Wait until every worker has taken a version, or refused it.

        Args:
            number: The version.
            timeout: Longest wait in seconds.
        """
        began = time.monotonic()
        while True:
            workers = await self.workers()
            taken = {name: facts for name, facts in workers.items() if facts.settings == number}
            missing = {name: facts for name, facts in workers.items() if name not in taken}
            seconds = time.monotonic() - began
            if seconds >= timeout or all(facts.refused == number for facts in missing.values()):
                return Reach(seconds, taken, missing)
            await asyncio.sleep(LOOK)

    async def ask(self, *, wait: float = 0.25) -> list[Figures]:
        """Ask every process for its figures, and return what was told within a time.

        Args:
            wait: Seconds to wait for answers, 0.01..10.

        Raises:
            OptionError: The wait is out of its bounds.
        """
        return await self._gather("figures", decode_figures, wait)

    async def look(self, *, wait: float = 0.25) -> list[Snapshot]:
        """Ask every process to show itself, and return what was shown within a time, this process's own app included.

        Args:
            wait: Seconds to wait for answers, 0.01..10.

        Raises:
            OptionError: The wait is out of its bounds.
        """
        # Why here: few look, and it would cost each import of the package.
        from headrace.fleet.snapshot import decode_snapshot  # noqa: PLC0415 - as said above

        return await self._gather("snapshot", decode_snapshot, wait)

    async def _gather(self, word: str, decode: Callable[[bytes], A | None], wait: float) -> list[A]:
        if not 0.01 <= wait <= 10:  # noqa: PLR2004 - as it says
            raise OptionError(f"wait={wait!r}: expected seconds from 0.01 to 10.")
        answers: dict[tuple[str, int, str], A] = {}

        def told(_channel: str, message: bytes) -> None:
            told = decode(message)
            if told is not None:
                answers[told.host, told.pid, told.app] = told

        # Why one each: an answer that comes late must not be taken for one to another question.
        channel = f"{self._channel}:{word}"
        await self._office.listen((channel,), told)
        try:
            call = pack_command("PUBLISH", self._versions.channel, f"{word} {channel}")
            await self._office.control.roundtrip(call, 1)
            await asyncio.sleep(wait)
        finally:
            self._office.unlisten(told)
        return list(answers.values())


def default_author() -> str:
    """Return the user of this process and the name of this machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    shown = "".join(letter for letter in f"{user}@{socket.gethostname()}" if letter.isprintable())
    return shown[:AUTHOR_LIMIT]
