"""The declaration of every setting: variable, kind with bounds and unit, default, meaning, and who takes a change.

A new setting is one field here. How values are read, checked and described is in `headrace.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from headrace.settings_auto import AutoWhole
from headrace.settings_entry import declare
from headrace.settings_env import Choice, Folder, Milliseconds, Pattern, Seconds, Url, Whole
from headrace.settings_maps import LEVELS, Limits, PartLevels
from headrace.settings_switch import Switch

YEAR: Final = 31_536_000.0
DATA_DIR: Final = Path(".headrace")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Declared:
    """The fields of `headrace.settings.Settings`; durations are seconds."""

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
        "Connections kept open once the pool lent one, or from the start when set; at most REDIS_MAX_CONNECTIONS.",
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
    pool_stats_interval: float = declare(
        "MONITORING_POOL_INTERVAL_MS",
        Milliseconds(0, 3_600_000),
        60.0,
        "Interval of the log line `pool stats` of an app; 0 for none.",
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
        30.0,
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
        "Port on which a worker command answers /livez, /readyz, /healthz and /metrics; 0 for none.",
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
