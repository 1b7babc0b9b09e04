"""The commands that change the settings of the fleet: set, apply with or without a trial, rollback."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.connect import UrlOption, with_app
from headrace.cli.output import EXIT_FAILED, JsonOption, fail, print_json
from headrace.errors import OptionError, SettingsConflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.app import Headrace
    from headrace.fleet.desk import Reach
    from headrace.fleet.trial import Outcome, Trial, Window
    from headrace.settings_fleet import Version

NoteOption = Annotated[str, typer.Option("-m", "--note", help="Why, for the history.")]
AuthorOption = Annotated[str | None, typer.Option(help="Who, for the history.  [default: user@machine]")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, max=600, help="Seconds to wait until every worker has taken it.")
]


def set_(
    assignments: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="Settings in the unit of the variable; NAME= takes one out."),
    ],
    *,
    note: NoteOption = "",
    author: AuthorOption = None,
    wait: WaitOption = 5.0,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Change some settings of the fleet and keep the others.

    All values are checked before any is stored; a wrong one ends the command with code 2. Two writers at the same time
    do not overwrite each other: the later one is told. The exit code is 1 when a worker has not taken the change.
    """
    changes = _parse(assignments)

    async def write(app: Headrace) -> tuple[Version, Version, Reach]:
        base = await app.fleet.read()
        version = await app.fleet.change(changes, base=base, author=author, note=note, place="the command")
        return base, version, await app.fleet.wait_until_taken(version.number, timeout=wait)

    _report(*with_app(url, write), as_json=as_json)


def apply(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="File with NAME=VALUE lines, as .env.", show_default=False)
    ] = None,
    *,
    profile: Annotated[
        str | None, typer.Option(help="Instead of a file: default, small, large or incident.", show_default=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Watch the fleet, and roll back when a figure gets worse.")
    ] = False,
    watch: Annotated[
        str, typer.Option(help="Figures to watch, of throughput, errors, latency, pool, workers.")
    ] = "throughput,errors,latency,pool,workers",
    before: Annotated[float, typer.Option(help="Seconds to watch before the change.")] = 10.0,
    after: Annotated[float, typer.Option("--for", help="Seconds to watch after the change.")] = 60.0,
    every: Annotated[float, typer.Option(help="Seconds of one window.")] = 1.0,
    note: NoteOption = "",
    author: AuthorOption = None,
    wait: WaitOption = 5.0,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Let the fleet have the settings of a file or a profile, and no others.

    With --verify the fleet is watched before and after. When one of the figures is beyond its limit in three windows
    one after another, the version before is stored again, the evidence is printed, and the exit code is 1. The limits:
    throughput 70 % of before while jobs wait; failures 5 points more; age of the oldest waiting job twice that of
    before and a second; calls that wait for a connection twice as many and 5; workers as many. Ctrl+C and the
    end of the terminal roll back, too.
    """
    values, source = _read_source(file, profile)

    async def write(app: Headrace) -> tuple[Version, Version, Reach]:
        base = await app.fleet.read()
        version = await app.fleet.store(values, base=base, author=author, note=note or source, place=source)
        return base, version, await app.fleet.wait_until_taken(version.number, timeout=wait)

    async def attempt(app: Headrace) -> tuple[Version, Outcome, Reach]:
        from headrace.fleet.trial import Trial

        watched = [figure.strip() for figure in watch.split(",") if figure.strip()]
        told = _print_window if not as_json else _print_nothing
        trial = Trial(app, watched=watched, before=before, after=after, every=every, told=told)
        base = await app.fleet.read()
        with _ended_with_a_word(trial, base):
            outcome = await trial.run(values, base=base, author=author, note=note or source, source=source)
        latest = outcome.restored or outcome.version
        return base, outcome, await app.fleet.wait_until_taken(latest.number, timeout=wait)

    if verify:
        _report_trial(*with_app(url, attempt), as_json=as_json)
    else:
        _report(*with_app(url, write), as_json=as_json)


def rollback(
    number: Annotated[
        int | None,
        typer.Argument(min=0, metavar="[N]", help="Version to go back to, 0 for none.  [default: the one before]"),
    ] = None,
    *,
    note: NoteOption = "",
    author: AuthorOption = None,
    wait: WaitOption = 5.0,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Go back to an earlier version of the fleet's settings; every worker has it within five seconds.

    Without a number it goes one version back, and called again one further. What is stored is a new version, so that
    going back can be undone like any other change.
    """

    async def write(app: Headrace) -> tuple[Version, Version, Reach]:
        base = await app.fleet.read()
        version = await app.fleet.roll_back(number, base=base, author=author, note=note)
        return base, version, await app.fleet.wait_until_taken(version.number, timeout=wait)

    _report(*with_app(url, write), as_json=as_json)


def read_file(name: str) -> dict[str, str]:
    """Read NAME=VALUE lines.

    Raises:
        OptionError: There is no such file.
        SettingError: It cannot be read.
    """
    from headrace.settings_env import read_dotenv

    path = Path(name)
    if not path.is_file():
        raise OptionError(f"'{name}': no such file. Name a file with NAME=VALUE lines, a version, or a profile.")
    return {variable: text for variable, text in read_dotenv(path, {}).items() if text.strip()}


def _read_source(file: str | None, profile: str | None) -> tuple[Mapping[str, str], str]:
    from headrace.settings_profiles import PROFILES

    if (file is None) == (profile is None):
        raise OptionError("expected either a file or --profile NAME. `headrace config apply --help` shows both.")
    if file is not None:
        return read_file(file), file
    if profile is None or profile not in PROFILES:
        raise OptionError(f"--profile {profile}: expected one of {', '.join(PROFILES)}.")
    return PROFILES[profile].values, f"profile {profile}"


def _parse(assignments: list[str]) -> dict[str, str | None]:
    """Read NAME=VALUE.

    Raises:
        OptionError: One is something else, or names a setting again.

    Example:
        >>> _parse(["QUEUE_CONCURRENCY=5", "HEADRACE_THREADS="])
        {'QUEUE_CONCURRENCY': '5', 'HEADRACE_THREADS': None}
    """
    changes: dict[str, str | None] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise OptionError(f"'{text}': expected NAME=VALUE, or NAME= to take a setting out.")
        if name in changes:
            raise OptionError(f"'{text}': {name} is named twice. Name it once.")
        changes[name] = value.strip() or None
    return changes


@contextmanager
def _ended_with_a_word(trial: Trial, base: Version) -> Iterator[None]:
    """Let SIGTERM and the end of the terminal end a trial as Ctrl+C does, and say what became of its settings."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    ended: list[int] = []

    def end(number: int) -> None:
        ended.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except BaseException as error:
        # A terminal that is gone cannot be written to.
        with suppress(OSError):
            _say_what_counts(trial, base, error)
        if ended and isinstance(error, asyncio.CancelledError):
            raise typer.Exit(128 + ended[0]) from error
        raise


def _say_what_counts(trial: Trial, base: Version, error: BaseException) -> None:
    tried, restored = trial.stored, trial.restored
    if tried is None:
        typer.echo("the watch was ended: nothing was stored.", err=True)
    elif restored is not None:
        typer.echo(
            f"the watch was ended: version {tried.number} was taken back, version {restored.number} is what version "
            f"{base.number} was. Nothing of it counts any more.",
            err=True,
        )
    elif not isinstance(error, SettingsConflict):
        typer.echo(
            f"the watch was ended: version {tried.number} is stored and counts, as it could not be taken back. Run "
            f"`headrace config rollback {base.number}`.",
            err=True,
        )


def _report(base: Version, version: Version, reach: Reach, *, as_json: bool) -> None:
    from headrace.cli.config_view import print_differences, print_reach
    from headrace.settings_fleet import find_differences

    found = find_differences(base.values, version.values)
    if as_json:
        print_json(_facts(version, [str(each) for each in found], reach))
        complete = not reach.missing
    else:
        typer.echo(
            f"version {version.number} stored by {version.author}" + (f": {version.note}" if version.note else "")
        )
        if found:
            print_differences(found, {})
        else:
            typer.echo("No difference.")
        complete = print_reach(reach, version.number)
    if not complete:
        raise typer.Exit(EXIT_FAILED)


def _report_trial(base: Version, outcome: Outcome, reach: Reach, *, as_json: bool) -> None:
    from headrace.cli.config_view import print_reach

    restored = outcome.restored
    if as_json:
        facts = _facts(restored or outcome.version, [str(each) for each in outcome.worse], reach)
        print_json({**facts, "tried": outcome.version.number, "kept": restored is None,
                    "before": outcome.before, "after": outcome.after})  # fmt: skip
    elif restored is None:
        typer.echo(f"version {outcome.version.number} stays: no figure got worse in {len(outcome.after)} windows")
        print_reach(reach, outcome.version.number)
    else:
        for worse in outcome.worse:
            typer.echo(f"worse: {worse}")
        print_reach(reach, restored.number)
        fail(
            f"version {outcome.version.number} was taken back: version {restored.number} is what version {base.number} "
            "was. `headrace config diff` shows what it would have changed."
        )
    if restored is not None or reach.missing:
        raise typer.Exit(EXIT_FAILED)


def _facts(version: Version, changed: list[str], reach: Reach) -> dict[str, Any]:
    return {
        "version": version.number,
        "author": version.author,
        "note": version.note,
        "changed": changed,
        "seconds": round(reach.seconds, 3),
        "taken": sorted(reach.taken),
        "missing": {name: facts.reason for name, facts in reach.missing.items()},
        "restart": sorted({variable for facts in reach.taken.values() for variable in facts.restart}),
    }


def _print_window(after: bool, window: Window) -> None:  # noqa: FBT001 - the callback of a trial
    typer.echo(
        f"{'after ' if after else 'before'}  throughput {window.throughput:.1f}/s  errors {100 * window.errors:.1f} %  "
        f"latency {window.latency:.0f} ms  pool {window.pool}  workers {window.workers}  waiting {window.waiting}"
    )


def _print_nothing(after: bool, window: Window) -> None:  # noqa: FBT001 - as above
    """Print nothing: JSON is one value."""
