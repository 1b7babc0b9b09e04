"""The command `headrace pool size`: the connections that a process and the fleet need, and what the server has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.connect import UrlOption, with_app
from headrace.cli.output import EXIT_FAILED, JsonOption, is_terminal, print_facts, print_json, print_table

if TYPE_CHECKING:
    from headrace.settings import Settings
    from headrace.sizing.demand import Sizing

pool = typer.Typer(name="pool", help="Size the connection pools of the fleet.", no_args_is_help=True)


@pool.callback()
def _group() -> None:
    """Size the connection pools of the fleet."""


@pool.command()
def size(
    *,
    workers: Annotated[int, typer.Option(min=0, max=1_000, help="Workers of the process to size.")] = 1,
    slots: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Slots of each of them; else QUEUE_CONCURRENCY.")
    ] = None,
    borrowed: Annotated[
        int | None,
        typer.Option(min=0, max=10_000, help="Connections that its redis-py clients want at once; else one a slot."),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Add up what one more process needs, beside those that run, and recommend its REDIS_MAX_CONNECTIONS.

    The exit code is 1 when the maxima of all processes do not fit the server.
    """
    from headrace.settings import load_settings
    from headrace.sizing.demand import Demand
    from headrace.verify.doctor import size_fleet

    settings = load_settings({"redis_url": url})
    each = settings.queue_concurrency if slots is None else slots
    demand = Demand(workers, workers * each, borrowed, auto=settings.redis_max_connections == "auto")
    found = with_app(url, lambda app: size_fleet(app, settings, demand, app.id))
    if as_json:
        print_json(_as_json(settings, found))
    else:
        _print(settings, found)
    if found.verdict == "over":
        raise typer.Exit(EXIT_FAILED)


def _as_json(settings: Settings, found: Sizing) -> dict[str, Any]:
    from headrace.settings import VARIABLES, source_of

    return {
        "sizing": found,
        "maximum_source": source_of(settings, VARIABLES["REDIS_MAX_CONNECTIONS"]),
        "minimum_source": source_of(settings, VARIABLES["REDIS_MIN_CONNECTIONS"]),
    }


def _print(settings: Settings, found: Sizing) -> None:
    from headrace.settings import VARIABLES, source_of

    columns = ("consumer", "process", "fleet", "for")
    rows = [(row.consumer, row.process, row.fleet, row.text) for row in found.rows]
    rest = f"all of them; {found.links} and {found.fleet_links} without clients that borrow"
    rows.append(("needed", found.need, found.fleet_need, rest))
    rows.append(
        ("allowed", found.maximum, found.places, f"maxima; processes of the fleet, this one counted: {found.processes}")
    )
    print_table(columns, rows, right=columns[1:3])
    if is_terminal():
        typer.echo()
    limits, server = found.limits, found.server
    maximum = f"{settings.redis_max_connections} ({source_of(settings, VARIABLES['REDIS_MAX_CONNECTIONS'])})"
    print_facts(
        [
            ("maximum", maximum),
            ("minimum", f"{found.minimum} ({source_of(settings, VARIABLES['REDIS_MIN_CONNECTIONS'])})"),
            ("maxclients", "unknown" if server.maxclients is None else f"{server.maxclients} (from {server.source})"),
            ("clients now", server.clients),
            ("fleet may have", None if limits is None else f"{limits.most}, and {limits.share} with auto"),
            ("recommended", found.recommended),
            ("because", found.reason),
            ("verdict", found.verdict),
            *([("advice", found.advice)] if found.advice else []),
        ]
    )
