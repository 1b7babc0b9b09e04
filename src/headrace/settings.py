"""The settings of an app: read from their sources, checked, and each with the source that it came from.

A setting comes from an argument, else the environment, else a .env file, else what is stored in Redis for the whole
fleet, else its default, and remembers which. The environment is only read, never changed. A new setting is one field in
`headrace.settings_fields`; the reference, `headrace config show` and the errors follow from it. How values are written
is in `headrace.settings_env`; what a declaration says, such as whether a running worker takes a change, in
`headrace.settings_entry`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import SettingError
from headrace.settings_auto import AUTO
from headrace.settings_entry import Setting, Source, read_declarations
from headrace.settings_env import read_dotenv
from headrace.settings_fields import Declared
from headrace.settings_names import nearest, warn_of_others

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings(Declared):
    """The settings of one app; durations are seconds.

    Building one checks every value, so a `Settings` that exists is valid.

    Raises:
        SettingError: A value is malformed or outside its bounds.
    """

    sources: Mapping[str, Source] = field(default_factory=dict, compare=False)
    """Where each field came from; a field that is missing here has its default or was set by the program."""

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            source = self.sources.get(setting.field, "argument")
            object.__setattr__(self, setting.field, setting.check(getattr(self, setting.field), source))
        maximum = self.redis_max_connections
        if maximum == AUTO:
            return
        # Why: who lowers only the maximum means fewer connections, not an error about a default they never saw.
        if "redis_min_connections" not in self.sources and self.redis_min_connections == MINIMUM.default:
            object.__setattr__(self, "redis_min_connections", min(self.redis_min_connections, maximum))
        if self.redis_min_connections > maximum:
            raise SettingError(
                f"REDIS_MIN_CONNECTIONS={self.redis_min_connections}: expected at most REDIS_MAX_CONNECTIONS="
                f"{maximum} (the first from {source_of(self, MINIMUM)}, the second from {source_of(self, MAXIMUM)}). "
                "Lower the first, or raise the second.",
                variable="REDIS_MIN_CONNECTIONS",
                value=str(self.redis_min_connections),
                expected="a whole number from 0 to REDIS_MAX_CONNECTIONS",
                source=self.sources.get("redis_min_connections", "argument"),
            )

    def __repr__(self) -> str:
        """Show every field, with passwords masked."""
        shown = (f"{setting.field}={setting.kind.conceal(getattr(self, setting.field))}" for setting in SETTINGS)
        return f"Settings({', '.join(shown)})"

    def override(self, overrides: Mapping[str, object]) -> Settings:
        """Return a copy with some fields replaced, their source being `argument`.

        Args:
            overrides: Field name to value, as for `load_settings`; None leaves the field as it is.

        Raises:
            SettingError: An unknown field, or a value outside its bounds.
        """
        given = _arguments(overrides)
        kept = {name: getattr(self, name) for name in _BY_FIELD if name not in given}
        if "redis_min_connections" not in self.sources and self.redis_min_connections <= MINIMUM.default:
            # The minimum may have been lowered along with the maximum, so it starts again from its default.
            kept.pop("redis_min_connections", None)
        sources: dict[str, Source] = {**self.sources, **dict.fromkeys(given, "argument")}
        return Settings(**kept, **given, sources=sources)

    def with_fleet(self, stored: Mapping[str, str], *, place: str) -> Settings:
        """Return a copy in which the fleet's settings stand for what no nearer source has set.

        What came from the fleet before and is not stored any more has its default again. Names that are no settings,
        and those that belong to one process, are left out.

        Args:
            stored: Variable to text.
            place: Where that is, for errors.

        Raises:
            SettingError: A value is malformed or outside its bounds, or does not go with the others.
        """
        values: dict[str, Any] = {}
        sources: dict[str, Source] = {}
        for setting in SETTINGS:
            source = source_of(self, setting)
            if source not in {"fleet", "default"}:
                values[setting.field] = getattr(self, setting.field)
                if setting.field in self.sources:
                    sources[setting.field] = source
            elif setting.variable in stored and setting.change != "local":
                values[setting.field] = setting.parse(stored[setting.variable], "fleet", place=place)
                sources[setting.field] = "fleet"
        return Settings(**values, sources=sources)


SETTINGS: Final[tuple[Setting[Any], ...]] = read_declarations(fields(Settings))
_BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}
VARIABLES: Final = {setting.variable: setting for setting in SETTINGS}
"""Every setting by its variable."""
#: Follows a lowered maximum unless it was set.
MINIMUM: Final[Setting[int]] = _BY_FIELD["redis_min_connections"]
MAXIMUM: Final = _BY_FIELD["redis_max_connections"]


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
) -> Settings:
    """Read every setting from the first source that has it.

    The sources are, in order: argument, environment, .env file, default; an app that opens adds those of the fleet with
    `Settings.with_fleet`. An empty variable counts as not set. A name that starts with HEADRACE_ and is no setting is
    warned of once in the log, and so is one that is meant for a part which is not there yet.

    Args:
        overrides: Field name to value, durations in seconds; a value of None counts as not given.
        environ: Variables to read instead of those of the process.
        dotenv: File with NAME=value lines; it need not exist. None reads none.

    Raises:
        SettingError: A value is malformed or outside its bounds, an override names no field, or the .env file cannot
            be read. The message names the variable, the value, what is allowed, and where to correct it.
    """
    environ = os.environ if environ is None else environ
    from_file = read_dotenv(dotenv, environ)
    values = _arguments(overrides or {})
    sources: dict[str, Source] = dict.fromkeys(values, "argument")
    for setting in SETTINGS:
        if setting.field in values:
            continue
        if given := environ.get(setting.variable, "").strip():
            values[setting.field] = setting.parse(given, "environment", place="the environment")
            sources[setting.field] = "environment"
        elif given := from_file.get(setting.variable, "").strip():
            values[setting.field] = setting.parse(given, ".env", place=str(dotenv))
            sources[setting.field] = ".env"
    warn_of_others([*environ, *from_file], VARIABLES)
    return Settings(**values, sources=sources)


def source_of(settings: Settings, setting: Setting[Any]) -> Source:
    """Tell where the value of one setting came from."""
    source = settings.sources.get(setting.field)
    if source is not None:
        return source
    unchanged = getattr(settings, setting.field) == setting.default or (
        setting is MINIMUM and settings.redis_min_connections <= MINIMUM.default
    )
    return "default" if unchanged else "argument"


def _arguments(overrides: Mapping[str, object]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in _BY_FIELD:
            raise SettingError(
                f"{name}: no such setting.{nearest(name, _BY_FIELD)} `headrace config show` lists all settings.",
                variable=name,
                source="argument",
            )
        if value is not None:
            values[name] = _BY_FIELD[name].check(value, "argument")
    return values
