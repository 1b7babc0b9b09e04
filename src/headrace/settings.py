"""Every setting of Headrace: variable, unit, default, bounds and meaning, each declared once.

A setting comes from an argument, else the environment, else a .env file, else its default, and remembers which. The
environment is only read, never changed. A new setting is one field of `Settings`; the reference, `headrace config show`
and the errors follow from it. How values are written is in `headrace.settings_env`.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

from headrace.errors import SettingError
from headrace.settings_env import (
    Choice,
    Folder,
    Kind,
    Milliseconds,
    Pattern,
    Seconds,
    Shown,
    Url,
    Whole,
    read_dotenv,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

T = TypeVar("T")
Source: TypeAlias = Literal["argument", "environment", ".env", "default"]
YEAR: Final = 31_536_000.0
DATA_DIR: Final = Path(".headrace")


def _setting(variable: str, kind: Kind[T], default: T, text: str) -> T:
    # A type checker shall see a plain default of the field's type, as it does for `dataclasses.field` itself.
    return field(default=default, metadata={"variable": variable, "kind": kind, "text": text})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """The settings of one app; durations are seconds.

    Building one checks every value, so a `Settings` that exists is valid.

    Raises:
        SettingError: A value is malformed or outside its bounds.
    """

    redis_url: str | None = _setting(
        "REDIS_URL", Url(), None, "Server that holds the queues; without one, a server is started on a private socket."
    )
    redis_max_connections: int = _setting(
        "REDIS_MAX_CONNECTIONS", Whole(4, 10_000), 100, "Most connections that the pool of one process ever holds."
    )
    redis_min_connections: int = _setting(
        "REDIS_MIN_CONNECTIONS",
        Whole(0, 10_000),
        20,
        "Connections that the pool keeps open when idle; never above REDIS_MAX_CONNECTIONS.",
    )
    redis_acquire_timeout: float = _setting(
        "REDIS_ACQUIRE_TIMEOUT_MS", Milliseconds(1, 600_000), 10.0, "Longest wait for a connection of the pool."
    )
    queue_concurrency: int = _setting(
        "QUEUE_CONCURRENCY", Whole(1, 10_000), 100, "Slots of one worker process: jobs that it runs at once."
    )
    lease: float = _setting(
        "QUEUE_STALLED_INTERVAL",
        Milliseconds(1_000, 600_000),
        30.0,
        "Lease of a worker: a worker that has not renewed it for this long loses its jobs as stalled.",
    )
    max_stalled: int = _setting(
        "HEADRACE_MAX_STALLED",
        Whole(0, 100),
        3,
        "Times a job may stall before it is dead; it may be what kills workers.",
    )
    prefix: str = _setting(
        "HEADRACE_PREFIX",
        Pattern(r"[A-Za-z0-9_.:-]{1,64}", "1..64 of A-Z a-z 0-9 _ . : -", "1 to 64 letters, digits or _ . : -"),
        "headrace",
        "Start of every key in Redis; apps with different prefixes do not see each other.",
    )
    data_dir: Path = _setting(  # noqa: RUF009  # It returns a dataclass field, as every other line here.
        "HEADRACE_DATA_DIR", Folder(), DATA_DIR, "Folder of the default server: its data and its socket."
    )
    grace: float = _setting(
        "HEADRACE_GRACE", Seconds(0, 3_600), 25.0, "Time that running jobs get to finish when a worker stops."
    )
    record_limit_bytes: int = _setting(
        "HEADRACE_RECORD_LIMIT_BYTES",
        Whole(1_024, 67_108_864, unit="bytes"),
        1_048_576,
        "Largest record of a job, and largest result.",
    )
    compress_over_bytes: int = _setting(
        "HEADRACE_COMPRESS_OVER_BYTES",
        Whole(256, 67_108_864, unit="bytes", or_zero=True),
        4_096,
        "Records above this size are compressed; 0 for never.",
    )
    keep_result: float = _setting(
        "HEADRACE_KEEP_RESULT", Seconds(0, YEAR), 300.0, "Time that the result of a finished job is kept."
    )
    keep_finished_count: int = _setting(
        "HEADRACE_KEEP_FINISHED_COUNT", Whole(0, 10_000_000), 10_000, "Finished jobs kept for inspection, per queue."
    )
    keep_dead_count: int = _setting(
        "HEADRACE_KEEP_DEAD_COUNT", Whole(0, 10_000_000), 10_000, "Dead jobs kept for inspection, per queue."
    )
    keep_dead: float = _setting("HEADRACE_KEEP_DEAD", Seconds(0, YEAR), 604_800.0, "Time that a dead job is kept.")
    threads: int = _setting("HEADRACE_THREADS", Whole(1, 1_000), 32, "Threads of a worker that run plain functions.")
    processes: int = _setting(
        "HEADRACE_JOB_PROCESSES", Whole(1, 256), 2, "Child processes of a worker that run tasks with process=True."
    )
    loop_lag_warn: float = _setting(
        "HEADRACE_LOOP_LAG_WARN_MS",
        Milliseconds(10, 60_000),
        0.25,
        "Event-loop delay above which the log names the task that blocked.",
    )
    log_level: str = _setting(
        "HEADRACE_LOG_LEVEL",
        Choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "INFO",
        "Least severe log lines that the commands print.",
    )
    log_format: str = _setting(
        "HEADRACE_LOG_FORMAT",
        Choice("auto", "console", "json"),
        "auto",
        "How the commands print log lines; auto is console on a terminal, else json.",
    )
    sources: Mapping[str, Source] = field(default_factory=dict, compare=False)
    """Where each field came from; a field that is missing here has its default or was set by the program."""

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            source = self.sources.get(setting.field, "argument")
            object.__setattr__(self, setting.field, setting.check(getattr(self, setting.field), source))
        # Why: who lowers only the maximum means fewer connections, not an error about a default they never saw.
        if "redis_min_connections" not in self.sources and self.redis_min_connections == _MINIMUM.default:
            object.__setattr__(
                self, "redis_min_connections", min(self.redis_min_connections, self.redis_max_connections)
            )
        if self.redis_min_connections > self.redis_max_connections:
            raise SettingError(
                f"REDIS_MIN_CONNECTIONS={self.redis_min_connections}: expected at most REDIS_MAX_CONNECTIONS="
                f"{self.redis_max_connections}. Lower the first, or raise the second.",
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
        if "redis_min_connections" not in self.sources and self.redis_min_connections <= _MINIMUM.default:
            # The minimum may have been lowered along with the maximum, so it starts again from its default.
            kept.pop("redis_min_connections", None)
        sources: dict[str, Source] = {**self.sources, **dict.fromkeys(given, "argument")}
        return Settings(**kept, **given, sources=sources)


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """The declaration of one setting."""

    variable: str
    field: str
    kind: Kind[T]
    default: T
    text: str

    def parse(self, given: str, source: Source, *, place: str) -> T:
        """Turn the text of a variable into a value.

        Raises:
            SettingError: The text is malformed or outside the bounds.
        """
        try:
            return self.kind.parse(given.strip())
        except ValueError:
            remedy = f"Correct it in {place}, or remove it there for the default of {self.kind.show(self.default)}."
            raise self._error(self.variable, given, self.kind.expected, source, remedy) from None

    def check(self, given: object, source: Source) -> T:
        """Check a value that the program handed over.

        Raises:
            SettingError: The value has the wrong type or lies outside the bounds.
        """
        try:
            return self.kind.check(given)
        except ValueError:
            remedy = f"Correct the argument, or leave it out for {self.variable} or the default."
            raise self._error(self.field, given, self.kind.expected_value, source, remedy) from None

    def _error(self, name: str, given: object, expected: str, source: Source, remedy: str) -> SettingError:
        value = self.kind.conceal(given)
        return SettingError(
            f"{name}={value}: expected {expected}. {remedy}",
            variable=name,
            value=value,
            expected=expected,
            source=source,
        )


SETTINGS: Final[tuple[Setting[Any], ...]] = tuple(
    Setting(item.metadata["variable"], item.name, item.metadata["kind"], item.default, item.metadata["text"])
    for item in fields(Settings)
    if item.metadata
)
_BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}
_VARIABLES: Final = {setting.variable for setting in SETTINGS}
_MINIMUM: Final[Setting[int]] = _BY_FIELD["redis_min_connections"]


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as people see it: values in the unit of the variable, passwords masked."""

    name: str
    field: str
    value: Shown
    source: Source
    default: Shown
    unit: str
    bounds: str
    text: str


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
) -> Settings:
    """Read every setting from the first source that has it.

    The sources are, in order: argument, environment, .env file, default. An empty variable counts as not set. A name
    that starts with HEADRACE_ and is no setting is warned of once in the log.

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
    for name in [*environ, *from_file]:
        if name.startswith("HEADRACE_") and name not in _VARIABLES:
            _warn_unknown(name)
    return Settings(**values, sources=sources)


def describe(settings: Settings) -> list[SettingRow]:
    """List every setting with its value, source, default, unit, bounds and meaning, passwords masked."""
    return [
        SettingRow(
            name=setting.variable,
            field=setting.field,
            value=setting.kind.show(getattr(settings, setting.field)),
            source=_source(settings, setting),
            default=setting.kind.show(setting.default),
            unit=setting.kind.unit,
            bounds="0..REDIS_MAX_CONNECTIONS" if setting is _MINIMUM else setting.kind.bounds,
            text=setting.text,
        )
        for setting in SETTINGS
    ]


def _source(settings: Settings, setting: Setting[Any]) -> Source:
    source = settings.sources.get(setting.field)
    if source is not None:
        return source
    unchanged = getattr(settings, setting.field) == setting.default or setting is _MINIMUM
    return "default" if unchanged else "argument"


def _arguments(overrides: Mapping[str, object]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in _BY_FIELD:
            raise SettingError(
                f"{name}: no such setting.{_nearest(name, _BY_FIELD)} `headrace config show` lists all settings.",
                variable=name,
                source="argument",
            )
        if value is not None:
            values[name] = _BY_FIELD[name].check(value, "argument")
    return values


# The cache is what makes the warning appear once; it is bounded in case a program makes up names without end.
@lru_cache(maxsize=256)
def _warn_unknown(variable: str) -> None:
    logger.warning(
        "unknown setting ignored: %s.%s `headrace config show` lists all settings.",
        variable,
        _nearest(variable, _VARIABLES),
    )


def _nearest(name: str, known: Mapping[str, object] | set[str]) -> str:
    import difflib  # noqa: PLC0415  # Only a wrong name needs it, and it costs a tenth of the import of this module.

    # Why: the common start would make any two variables look alike.
    endings = {candidate.removeprefix("HEADRACE_"): candidate for candidate in known}
    matches = difflib.get_close_matches(name.removeprefix("HEADRACE_"), endings, n=1)
    return f" Did you mean {endings[matches[0]]}?" if matches else ""
