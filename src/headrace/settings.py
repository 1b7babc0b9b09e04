"""Every setting of Headrace: variable, unit, default, bounds and meaning, each declared once.

A setting comes from an argument, else the environment, else a .env file, else what is stored in Redis for the whole
fleet, else its default, and remembers which. The environment is only read, never changed. A new setting is one field of
`Settings`; the reference, `headrace config show` and the errors follow from it. How values are written is in
`headrace.settings_env`; what a declaration says, such as whether a running worker takes a change, in
`headrace.settings_entry`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from headrace.errors import SettingError
from headrace.settings_auto import AUTO, AutoWhole
from headrace.settings_entry import Setting, Source, declare, read_declarations
from headrace.settings_env import (
    Choice,
    Folder,
    Milliseconds,
    Pattern,
    Seconds,
    Url,
    Whole,
    read_dotenv,
)
from headrace.settings_maps import LEVELS, Limits, PartLevels
from headrace.settings_names import nearest, warn_of_others
from headrace.settings_switch import Switch

if TYPE_CHECKING:
    from collections.abc import Mapping

YEAR: Final = 31_536_000.0
DATA_DIR: Final = Path(".headrace")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """The settings of one app; durations are seconds.

    Building one checks every value, so a `Settings` that exists is valid.

    Raises:
        SettingError: A value is malformed or outside its bounds.
    """

    redis_url: str | None = declare(
        "REDIS_URL",
        Url(),
        None,
        "Server that holds the queues; without one, a server is started on a private socket.",
        change="local",
    )
    redis_max_connections: int | Literal["auto"] = declare(
        "REDIS_MAX_CONNECTIONS",
        AutoWhole(4, 10_000),
        100,
        "Most connections that the pool of one process ever holds; auto follows the load within the fleet's share.",
        change="live",
    )
    redis_min_connections: int = declare(
        "REDIS_MIN_CONNECTIONS",
        Whole(0, 10_000),
        20,
        "Connections that the pool keeps open when idle; never above REDIS_MAX_CONNECTIONS.",
        change="live",
    )
    pool_fleet_share: int = declare(
        "HEADRACE_POOL_FLEET_SHARE",
        Whole(1, 100, unit="%"),
        80,
        "Share of the server's maxclients that all processes together stay under when their maximum is auto.",
        change="live",
    )
    redis_acquire_timeout: float = declare(
        "REDIS_ACQUIRE_TIMEOUT_MS",
        Milliseconds(1, 600_000),
        10.0,
        "Longest wait for a connection of the pool.",
        change="live",
    )
    wait_replicas: int = declare(
        "HEADRACE_WAIT_REPLICAS",
        Whole(0, 5),
        0,
        "Replicas that have to confirm a job before enqueue returns, so that it survives the loss of the primary.",
    )
    queue_concurrency: int = declare(
        "QUEUE_CONCURRENCY",
        Whole(1, 10_000),
        100,
        "Slots of one worker process: jobs that it runs at once.",
        change="live",
    )
    queue_limits: tuple[tuple[str, int], ...] = declare(
        "HEADRACE_QUEUE_LIMITS",
        Limits(),
        (),
        "Most slots that some queues may use in one worker process; a queue that is not named may use all.",
        change="live",
    )
    lease: float = declare(
        "QUEUE_STALLED_INTERVAL",
        Milliseconds(1_000, 600_000),
        30.0,
        "Lease of a worker: a worker that has not renewed it for this long loses its jobs as stalled.",
        change="live",
    )
    max_stalled: int = declare(
        "HEADRACE_MAX_STALLED",
        Whole(0, 100),
        3,
        "Times a job may stall before it is dead; it may be what kills workers.",
        change="live",
    )
    prefix: str = declare(
        "HEADRACE_PREFIX",
        Pattern(r"[A-Za-z0-9_.:-]{1,64}", "1..64 of A-Z a-z 0-9 _ . : -", "1 to 64 letters, digits or _ . : -"),
        "headrace",
        "Start of every key in Redis; apps with different prefixes do not see each other.",
        change="local",
    )
    data_dir: Path = declare(  # noqa: RUF009  # It returns a dataclass field, as every other line here.
        "HEADRACE_DATA_DIR",
        Folder(),
        DATA_DIR,
        "Folder of the default server: its data and its socket.",
        change="local",
    )
    grace: float = declare(
        "HEADRACE_GRACE", Seconds(0, 3_600), 25.0, "Time that running jobs get to finish when a worker stops."
    )
    record_limit_bytes: int = declare(
        "HEADRACE_RECORD_LIMIT_BYTES",
        Whole(1_024, 67_108_864, unit="bytes"),
        1_048_576,
        "Largest record of a job, and largest result.",
    )
    compress_over_bytes: int = declare(
        "HEADRACE_COMPRESS_OVER_BYTES",
        Whole(256, 67_108_864, unit="bytes", or_zero=True),
        4_096,
        "Records above this size are compressed; 0 for never.",
        change="live",
    )
    keep_result: float = declare(
        "HEADRACE_KEEP_RESULT",
        Seconds(0, YEAR),
        300.0,
        "Time that the result of a finished job is kept.",
        change="live",
    )
    keep_finished_count: int = declare(
        "HEADRACE_KEEP_FINISHED_COUNT",
        Whole(0, 10_000_000),
        10_000,
        "Finished jobs kept for inspection, per queue.",
        change="live",
    )
    keep_dead_count: int = declare(
        "HEADRACE_KEEP_DEAD_COUNT",
        Whole(0, 10_000_000),
        10_000,
        "Dead jobs kept for inspection, per queue.",
        change="live",
    )
    keep_dead: float = declare(
        "HEADRACE_KEEP_DEAD", Seconds(0, YEAR), 604_800.0, "Time that a dead job is kept.", change="live"
    )
    threads: int = declare("HEADRACE_THREADS", Whole(1, 1_000), 32, "Threads of a worker that run plain functions.")
    processes: int = declare(
        "HEADRACE_JOB_PROCESSES", Whole(1, 256), 2, "Child processes of a worker that run tasks with process=True."
    )
    loop_lag_warn: float = declare(
        "HEADRACE_LOOP_LAG_WARN_MS",
        Milliseconds(10, 60_000),
        0.25,
        "Event-loop delay above which the log names the task that blocked.",
        change="live",
    )
    log_level: str = declare(
        "HEADRACE_LOG_LEVEL", Choice(*LEVELS), "INFO", "Least severe log lines that the commands print.", change="live"
    )
    log_levels: tuple[tuple[str, str], ...] = declare(
        "HEADRACE_LOG_LEVELS",
        PartLevels(),
        (),
        "Other levels for some parts of Headrace, which are named as its modules are.",
        change="live",
    )
    log_fold: float = declare(
        "HEADRACE_LOG_FOLD",
        Seconds(0, 3_600),
        10.0,
        "Interval in which a log line that repeats is printed once and counted; 0 prints every line.",
        change="live",
    )
    log_format: str = declare(
        "HEADRACE_LOG_FORMAT",
        Choice("auto", "console", "json"),
        "auto",
        "How the commands print log lines; auto is console on a terminal, else json.",
    )
    health_interval: float = declare(
        "MONITORING_HEALTH_INTERVAL_MS",
        Milliseconds(1_000, 600_000),
        10.0,
        "Longest time without an answer of the server before a probe asks for one.",
        change="live",
    )
    health_latency: float = declare(
        "HEADRACE_HEALTH_LATENCY_MS",
        Milliseconds(1, 60_000),
        0.1,
        "Time of an answer above which the server is slow.",
        change="live",
    )
    health_port: int = declare(
        "HEADRACE_HEALTH_PORT",
        Whole(0, 65_535),
        0,
        "Port on which a worker command answers /livez, /readyz and /healthz; 0 for none.",
        change="local",
    )
    health_host: str = declare(
        "HEADRACE_HEALTH_HOST",
        Pattern(r"[A-Za-z0-9_.:-]{1,255}", "1..255 of A-Z a-z 0-9 _ . : -", "a host name or an address"),
        "127.0.0.1",
        "Address on which it does; 0.0.0.0 or :: for every one of the machine.",
        change="local",
    )
    memory_enabled: bool = declare(
        "MEMORY_OPTIMIZATION_ENABLED",
        Switch(),
        default=True,
        text="Watch memory, and act on it in steps.",
        change="live",
    )
    memory_threshold: int = declare(
        "MEMORY_OPTIMIZATION_THRESHOLD",
        Whole(20, 95, unit="%"),
        80,
        "Share of its memory at which a process is elevated; high is halfway to the limit, critical again halfway.",
        change="live",
    )
    memory_interval: float = declare(
        "MEMORY_OPTIMIZATION_INTERVAL_MS", Milliseconds(100, 600_000), 5.0, "Interval of the readings.", change="live"
    )
    memory_limit_mb: int = declare(
        "HEADRACE_MEMORY_LIMIT",
        Whole(0, 16_777_216, unit="MB"),
        0,
        "Memory that the processes of one worker command share; 0 for what the system or the machine sets.",
        change="live",
    )
    memory_collector: str = declare(
        "HEADRACE_MEMORY_COLLECTOR",
        Choice("auto", "on", "off"),
        "auto",
        "Whether the collector is set for a worker; auto does so in processes of `headrace worker`.",
    )
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
                f"{maximum}. Lower the first, or raise the second.",
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
