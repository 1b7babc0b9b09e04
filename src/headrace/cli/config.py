"""The command `headrace config`: look at the settings, and change those of the whole fleet, forth and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.config_write import apply, rollback, set_
from headrace.cli.connect import UrlOption, with_app
from headrace.cli.output import EXIT_USAGE, JsonOption, fail, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.app import Headrace
    from headrace.cli.config_view import View
    from headrace.settings_fleet import Version

config = typer.Typer(name="config", help="Look at the settings, and change those of the fleet.", no_args_is_help=True)


@config.callback()
def _group() -> None:
    """Look at the settings of this folder and of the fleet, and change those of the fleet.

    The fleet is every process below one HEADRACE_PREFIX on one server. Its settings are kept there in versions; running
    processes take what can change live within a second. A value that a process has from an argument, the environment or
    its .env file stays.
    """


@config.command()
def show(
    *,
    local: Annotated[
        bool, typer.Option("--local", help="Do not ask the server for the settings of the fleet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array, for other programs.")] = False,
    url: UrlOption = None,
) -> None:
    """List every setting with its value, where the value came from, its default, and when a change takes effect.

    The values are those that a process started here and now would have. Passwords are masked. The exit code is 2 when a
    setting has a wrong value; the message names it. Without a server that runs, the fleet's settings are left out.
    """
    from headrace.cli.config_view import look, print_view
    from headrace.cli.output import exit_on_error

    with exit_on_error():
        view = look(url, local=local)
    if as_json:
        print_json(view.as_rows())
    else:
        print_view(view)
    _warn(view)


@config.command()
def diff(
    before: Annotated[
        str | None,
        typer.Argument(
            metavar="[FROM]", help="Version, profile or file.  [default: the version before TO, or the latest]"
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Argument(metavar="[TO]", help="Version, profile or file.  [default: the latest version]")
    ] = None,
    *,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Compare two versions of the fleet's settings; or a version with a profile or a file.

    A setting that is not stored has its default. The last column says when a change takes effect: live, restart (of the
    workers), and which workers still have to be restarted for it.
    """
    from headrace.cli.config_view import print_differences, restarts
    from headrace.settings_fleet import NO_VERSION, find_differences

    async def read(app: Headrace) -> tuple[Mapping[str, str], Mapping[str, str], dict[str, list[str]]]:
        latest = await app.fleet.read()
        to = latest if after is None else await _find(app, after, latest)
        if before is not None:
            one = await _find(app, before, latest)
        elif to.number == 0:
            # Why: a profile or a file is what the fleet might have next.
            one = latest
        else:
            one = await app.fleet.read(to.number - 1) if to.number > 1 else NO_VERSION
        return one.values, to.values, restarts(await app.fleet.workers())

    old, new, waits = with_app(url, read)
    found = find_differences(old, new)
    if as_json:
        rows = [
            {"name": each.variable, "before": each.before, "after": each.after, "change": each.change,
             "waits": waits.get(each.variable, [])}
            for each in found
        ]  # fmt: skip
        print_json(rows)
    elif not found:
        typer.echo("No difference.")
    else:
        print_differences(found, waits)


@config.command()
def history(
    *,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100, help="Versions.")] = 20,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """List the versions of the fleet's settings, the latest first: when, who, why, and what was changed."""
    from headrace.cli.config_view import show_time
    from headrace.settings_fleet import find_differences

    async def read(app: Headrace) -> list[Version]:
        return await app.fleet.history()

    versions = with_app(url, read)
    known = {version.number: version for version in versions}
    rows = []
    for version in versions[:limit]:
        earlier = known.get(version.number - 1)
        # Why: what the oldest one changed is not known any more, unless it is the first of all.
        before = earlier.values if earlier is not None else {} if version.number == 1 else None
        changed = None if before is None else [str(each) for each in find_differences(before, version.values)]
        rows.append((version, changed))
    if as_json:
        print_json(
            [
                {
                    "version": version.number,
                    "at_ms": version.at_ms,
                    "author": version.author,
                    "note": version.note,
                    "restores": None if version.restores < 0 else version.restores,
                    "changed": changed,
                    "values": dict(version.values),
                }
                for version, changed in rows
            ]
        )
    elif not rows:
        typer.echo("The fleet has never stored settings. `headrace config set NAME=VALUE` stores the first.")
    else:
        print_table(
            ("version", "time", "author", "note", "changed"),
            [
                (version.number, show_time(version.at_ms), version.author, version.note or None,
                 None if changed is None else "; ".join(changed) or "nothing")
                for version, changed in rows
            ],
            right=("version",),
        )  # fmt: skip


async def _find(app: Headrace, word: str, latest: Version) -> Version:
    """Return the version, the profile or the file that a word of the command line names."""
    from headrace.cli.config_write import read_file
    from headrace.settings_fleet import NO_VERSION, Version, check_values
    from headrace.settings_profiles import PROFILES

    if word.isascii() and word.isdecimal() and len(word) < 16:  # noqa: PLR2004 - more digits than any version has
        number = int(word)
        return NO_VERSION if not number else latest if number == latest.number else await app.fleet.read(number)
    if word in PROFILES:
        return Version(0, PROFILES[word].values)
    return Version(0, check_values(read_file(word), place=word))


def _warn(view: View) -> None:
    if view.trouble:
        typer.echo(view.trouble, err=True)
    if view.refused:
        fail(view.refused, EXIT_USAGE)


config.command(name="set")(set_)
config.command()(apply)
config.command()(rollback)
