"""What `headrace config` shows: rows of settings, differences, versions, and what waits for a restart where."""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from headrace.cli.output import is_terminal, print_table
from headrace.errors import HeadraceError, SettingError
from headrace.settings import load_settings
from headrace.settings_fleet import NO_VERSION
from headrace.settings_rows import describe, show_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.app import Headrace
    from headrace.fleet.desk import Reach
    from headrace.fleet.snapshot import Snapshot
    from headrace.settings import Settings
    from headrace.settings_fleet import Difference, Version
    from headrace.settings_rows import SettingRow
    from headrace.store.replies import WorkerFacts

#: Longest wait for the server of a command that can do without, seconds.
PATIENCE = 2.0
#: Processes that are named for one setting.
NAMED = 5
#: Columns of a terminal that has room for what a setting means.
WIDE = 140


@dataclass(frozen=True, slots=True)
class Other:
    """A running process with another value of a setting than one that is started here would have."""

    host: str
    pid: int
    value: str
    source: str


@dataclass(slots=True)
class View:
    """The settings as a process started here and now would have them.

    Attributes:
        rows: One a setting.
        version: The latest version of the fleet.
        waits: Workers that have to be restarted, by the setting that waits for it.
        others: Running processes that have another value, by setting.
        trouble: Why the fleet was not asked, if it could not be.
        refused: Why the fleet's settings do not count, if they are bad.
    """

    rows: list[SettingRow]
    version: Version = NO_VERSION
    waits: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, list[Other]] = field(default_factory=dict)
    trouble: str = ""
    refused: str = ""

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the rows for JSON."""
        return [
            {
                **asdict(row),
                "waits": self.waits.get(row.name, []),
                "running": [asdict(other) for other in self.others.get(row.name, [])],
            }
            for row in self.rows
        ]


def look(url: str | None, *, local: bool) -> View:
    """Read the settings here, and those of the fleet from a server that runs.

    Raises:
        SettingError: A setting of this process is wrong.
    """
    own = load_settings({"redis_url": url})
    if local or not _may_answer(own):
        # Why: whoever has stored settings in this folder would take the list below for all there is.
        left_out = not local and own.data_dir.is_dir()
        return View(
            describe(own), trouble="No server runs here; the fleet's settings are left out." if left_out else ""
        )
    from headrace.cli.connect import with_app

    async def read(app: Headrace) -> tuple[Version, dict[str, list[str]], list[Snapshot]]:
        workers = await app.fleet.workers()
        # Why only then: whoever is asked gets a quarter of a second to answer.
        shown = await app.fleet.look() if workers else []
        return await app.fleet.read(), restarts(workers), [one for one in shown if one.app != app.id]

    try:
        version, waits, running = with_app(url, read, patience=PATIENCE)
    except HeadraceError as error:
        return View(describe(own), trouble=f"The settings of the fleet were not read: {error}")
    try:
        place = f"version {version.number} of the fleet's settings (`headrace config set`, or `rollback`)"
        rows = describe(own.with_fleet(version.values, place=place))
    except SettingError as error:
        return View(describe(own), version, waits, refused=f"SettingError: {error}")
    return View(rows, version, waits, find_others(rows, running, waits))


def find_others(
    rows: Sequence[SettingRow], running: Sequence[Snapshot], waits: Mapping[str, Sequence[str]]
) -> dict[str, list[Other]]:
    """Return by setting which running processes have another value.

    Args:
        rows: The settings here. What belongs to one process (`local`) is left out.
        running: What the processes show of themselves.
        waits: Settings of the fleet that wait for a restart; they are told of apart.
    """
    # Why here: what only shows the settings here does without it.
    from headrace.fleet.snapshot import TEXT

    others: dict[str, list[Other]] = {}
    for row in rows:
        if row.change == "local" or row.name in waits:
            continue
        for one in running:
            if one.settings is None:
                continue
            value, source = one.settings.get(row.name, (show_value(row.default, row.unit)[:TEXT], "default"))
            # Why cut: a process tells no more than so much of a value.
            if value != row.shown[:TEXT]:
                others.setdefault(row.name, []).append(Other(one.host, one.pid, value, source))
    return others


def restarts(workers: Mapping[str, WorkerFacts]) -> dict[str, list[str]]:
    """Return by variable which workers wait for a restart to take it."""
    waits: dict[str, list[str]] = {}
    for name, facts in workers.items():
        for variable in facts.restart:
            waits.setdefault(variable, []).append(f"{name} ({facts.host}, pid {facts.pid})")
    return waits


def print_view(view: View) -> None:
    """Print the settings, then the version of the fleet and what waits for a restart."""
    if is_terminal():
        _print_table(view.rows)
    else:
        for row in view.rows:
            default = show_value(row.default)
            typer.echo(f"{row.name}={row.shown}  source {row.source}  default {default}  {row.change}")
    version = view.version
    if version.number:
        why = f": {version.note}" if version.note else ""
        typer.echo(f"# fleet: version {version.number}, {show_time(version.at_ms)} by {version.author}{why}")
    print_waits(view.waits)
    for name, others in view.others.items():
        for other in others[:NAMED]:
            place = f"process {other.pid} on {other.host}"
            typer.echo(f"# {place} runs with {name}={other.value} ({other.source}), which is another value than here")
        if len(others) > NAMED:
            typer.echo(f"# {len(others) - NAMED} more processes have another {name} than here")


def print_waits(waits: Mapping[str, Sequence[str]]) -> None:
    """Say which workers have to be restarted, and for what."""
    for variable, workers in waits.items():
        typer.echo(f"# restart needed for {variable}: worker {', worker '.join(workers)}")


def print_differences(found: Sequence[Difference], waits: Mapping[str, Sequence[str]]) -> None:
    """Print one line a setting that differs."""
    rows = [
        (each.variable, *str(each).removeprefix(f"{each.variable} ").split(" -> ", 1), each.change) for each in found
    ]
    print_table(("setting", "before", "after", "change"), rows)
    print_waits({each.variable: waits[each.variable] for each in found if each.variable in waits})


def print_reach(reach: Reach, number: int) -> bool:
    """Say how far a version got; False when a worker has not taken it."""
    total = len(reach.taken) + len(reach.missing)
    if total:
        typer.echo(f"taken by {len(reach.taken)} of {total} workers in {reach.seconds:.2f} s")
    else:
        typer.echo("no worker runs; the next ones take it when they start")
    for name, facts in reach.missing.items():
        why = facts.reason if facts.refused == number else "no answer; it may be gone"
        typer.echo(f"# worker {name} ({facts.host}, pid {facts.pid}) has version {facts.settings}: {why}")
    print_waits(restarts(reach.taken))
    return not reach.missing


def show_time(at_ms: int) -> str:
    """Write a time of the server for people, in the time zone of this machine."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at_ms else "-"


def _print_table(rows: Sequence[SettingRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Why: a value such as redis://[fe80::1] or a:key:b would be read as markup or as an emoji.
    console = Console(markup=False, emoji=False, highlight=False)
    # Why: a setting whose name is cut cannot be set.
    names = max((len(row.name) for row in rows), default=0)
    is_wide = console.width >= WIDE
    more = ("allowed", "meaning") if is_wide else ()
    table = Table(box=None, header_style="bold")
    table.add_column("setting", no_wrap=True, min_width=names)
    for column in ("value", "source", "default", "change", *more):
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = (row.name, row.shown, row.source, show_value(row.default), row.change, row.bounds, row.text)
        table.add_row(*cells[: 5 + len(more)], style="dim" if row.source == "default" else "")
    console.print(table)
    if not is_wide:
        console.print(f"What is allowed and what each means: {WIDE} columns wide, or with --json.")


def _may_answer(settings: Settings) -> bool:
    """Tell whether there is a server to ask, without starting the default one."""
    if settings.redis_url is not None:
        return True
    if not settings.data_dir.is_dir():
        return False
    from headrace.server.folder import DataFolder

    place = DataFolder(settings.data_dir).read_place()
    if place is None:
        return False
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        return connection.connect_ex(place.socket_path) == 0
