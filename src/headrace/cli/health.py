"""The command `headrace health`: the verdict on the server with its reasons, and every safety check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from headrace.cli.connect import UrlOption  # noqa: TC001 - typer reads the annotations
from headrace.cli.output import JsonOption  # noqa: TC001 - as above

if TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.health.verdict import Health

#: Exit code of each status.
EXITS: Final = {"healthy": 0, "degraded": 1, "unhealthy": 2}
#: Longest wait for the first connection, seconds.
OPEN_TIMEOUT: Final = 3.0


def health(url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Say how the server is, why, and what to do.

    The exit code is 0 when it is healthy, 1 when it is degraded, and 2 when it is unhealthy.
    """
    from headrace.cli.output import print_json

    found = _look(url)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    raise typer.Exit(EXITS[found.status])


def _look(url: str | None) -> Health:
    import asyncio

    from headrace.app import Headrace
    from headrace.errors import ServerError
    from headrace.health.facts import explain
    from headrace.health.verdict import Health, Status
    from headrace.settings_env import mask_url

    app = Headrace(url, settings={"redis_acquire_timeout": OPEN_TIMEOUT})
    try:
        return asyncio.run(_ask(app))
    except ServerError as error:
        finding = explain(str(error))
        return Health(
            status=Status.UNHEALTHY,
            redis=Status.UNHEALTHY,
            reasons=(finding.reason,),
            remedies=(finding.remedy,),
            server=mask_url(app.settings.redis_url or ""),
            pool={},
        )


async def _ask(app: Headrace) -> Health:
    async with app:
        return await app.health()


def _print(found: Health) -> None:
    from headrace.cli.output import print_facts, print_table

    print_facts(_facts(found))
    if found.checks:
        typer.echo("")
        rows = [(check.name, str(check.status), check.measured, check.threshold) for check in found.checks]
        print_table(("check", "status", "measured", "expected"), rows)


def _facts(found: Health) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [("status", str(found.status)), ("server", found.server or "the default server")]
    if found.latency.last is not None:
        last, threshold = found.latency.last * 1000, found.latency.threshold * 1000
        facts.append(("latency", f"{last:.1f} ms, threshold {threshold:.0f} ms"))
    for reason, remedy in zip(found.reasons, found.remedies, strict=True):
        facts += [("reason", reason), ("remedy", remedy)]
    return facts
