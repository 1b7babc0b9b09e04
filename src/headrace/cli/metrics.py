"""The command `headrace metrics`: the figures of all queues, once, in the text format of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from headrace.cli.connect import UrlOption, with_app

if TYPE_CHECKING:
    from headrace.app import Headrace


def metrics(url: UrlOption = None) -> None:
    """Print the figures of all queues, once, in the text format of Prometheus.

    The figures of worker processes are at /metrics of `headrace worker --health-port`. This command needs no worker:
    let a timer write what it prints where the textfile collector of a node exporter looks.
    """

    async def look(app: Headrace) -> str:
        text = await app.exporter.text(process=False, within=app.settings.redis_acquire_timeout)
        if (refusal := app.exporter.queues.refusal) is not None:
            # Why: a scrape goes on without the queues, of which this command alone tells.
            raise refusal
        return text

    typer.echo(with_app(url, look), nl=False)
