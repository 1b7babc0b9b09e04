"""Versions of the fleet's settings in Redis: one hash, read and written by one script each; no writer is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.errors import SettingError, SettingsConflict
from headrace.keys import settings_channel, settings_key
from headrace.resp import pack_command
from headrace.settings_fleet import NO_VERSION, VERSIONS_KEPT, Version, read_version
from headrace.store.script import PreparedScript, load_scripts

if TYPE_CHECKING:
    from headrace.store.store import Client, Store

#: Field of the hash that holds the number of the latest version.
LAST: Final = b"last"


class Versions:
    """Read and write the versions below the prefix of one store.

    Args:
        store: Sends the calls.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = settings_key(store.prefix)
        self.channel = settings_channel(store.prefix)

    async def read(self, client: Client, number: int = 0) -> Version:
        """Return a version; 0 for the latest, which is `NO_VERSION` when nothing was ever stored.

        Raises:
            SettingError: There is no such version any more, or it cannot be read.
            ConnectionLost: The server could not be reached.
        """
        script = PreparedScript(load_scripts()["settings_read"], (self._key,))
        last, found, stored = await self._store.call(client, script.pack((number,)), "settings_read")
        if stored:
            return read_version(found, stored)
        if not found:
            return NO_VERSION
        kept = f"{max(1, last - VERSIONS_KEPT + 1)} to {last} are kept" if last else "none was ever stored"
        raise SettingError(
            f"version {found} of the fleet's settings is not there: {kept}. See `headrace config history`.",
            source="fleet",
        )

    async def write(self, client: Client, expected: int, body: bytes) -> tuple[int, int]:
        """Store the next version; returns its number and time (ms).

        Args:
            client: Carries the call.
            expected: The latest version that the writer has seen.
            body: As `encode_version` writes it.

        Raises:
            SettingsConflict: Another version is the latest; nothing was written.
            ConnectionLost: The connection broke; whether the version was stored is not known.
        """
        script = PreparedScript(load_scripts()["settings_write"], (self._key,))
        call = script.pack((expected, VERSIONS_KEPT, self.channel, body))
        written, number, rest = await self._store.call(client, call, "settings_write")
        if written:
            return number, rest
        other = read_version(number, rest) if rest else Version(number, {})
        by = f" by {other.author}" if other.author else ""
        raise SettingsConflict(
            f"the settings of the fleet are at version {number}, written{by}, no longer at version {expected}; nothing "
            "was written. Look at `headrace config diff`, and repeat the command.",
            expected_version=expected,
            found_version=number,
        )

    async def history(self, client: Client) -> list[Version]:
        """Return the versions that are kept, the latest first; those that cannot be read have no values."""
        reply = await self._store.call(client, pack_command("HGETALL", self._key), "HGETALL")
        pairs = dict(reply)
        numbers = sorted((int(name) for name in pairs if name != LAST and name.isdigit()), reverse=True)
        return [_read(number, pairs[str(number).encode()]) for number in numbers]


def _read(number: int, stored: bytes) -> Version:
    try:
        return read_version(number, stored)
    except SettingError:
        return Version(number, {}, note="cannot be read")
