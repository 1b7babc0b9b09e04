"""The command `headrace queues`: list, stats, pause, resume, clear, retry. It needs no code of the user."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.connect import UrlOption, with_app
from headrace.cli.output import EXIT_USAGE, JsonOption, fail, is_terminal, print_facts, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.app import Headrace
    from headrace.queue import Queue, QueueStats
    from headrace.store.replies import WorkerFacts

queues = typer.Typer(name="queues", help="Look at queues and control them.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the queue.")]

_COUNTS = ("waiting", "delayed", "active", "completed", "failed", "cancelled")
_COLUMNS = ("queue", *_COUNTS, "paused", "workers", "jobs/s", "errors", "oldest")


@queues.command(name="list")
def list_(*, as_json: JsonOption = False, url: UrlOption = None) -> None:
    """List all queues that were ever used: the jobs by status, and how many workers serve each."""

    async def look(app: Headrace) -> tuple[list[tuple[str, QueueStats]], Counter[str], list[str]]:
        found = await app.queues()
        # Why: all questions travel together on one connection.
        stats, workers = await asyncio.gather(asyncio.gather(*(queue.stats() for queue in found)), app.fleet.workers())
        rows = [(queue.name, one) for queue, one in zip(found, stats, strict=True)]
        return rows, count_served(workers), [] if rows else await _nothing_here(app)

    rows, served, nothing = with_app(url, look)
    if as_json:
        print_json([{**_as_json(name, stats), "served": served[name]} for name, stats in rows])
    elif not rows:
        typer.echo("\n".join(nothing))
    else:
        print_table(_COLUMNS, [_row(name, stats, served[name]) for name, stats in rows], right=_COLUMNS[1:])


@queues.command()
def stats(name: NameArgument, *, as_json: JsonOption = False, url: UrlOption = None) -> None:
    """Show the counts, the pace and the errors of one queue."""

    async def look(app: Headrace) -> tuple[QueueStats, int]:
        return await known(app, name), count_served(await app.fleet.workers())[name]

    found, served = with_app(url, look)
    if as_json:
        print_json({**_as_json(name, found), "served": served})
    else:
        print_facts(_as_facts(name, found, served))


@queues.command()
def pause(name: NameArgument, *, as_json: JsonOption = False, url: UrlOption = None) -> None:
    """Keep all workers from taking jobs of a queue. Running jobs finish; jobs that are only held are handed back."""
    _set_paused(name, url, paused=True, as_json=as_json)


@queues.command()
def resume(name: NameArgument, *, as_json: JsonOption = False, url: UrlOption = None) -> None:
    """Let workers take jobs of a queue again."""
    _set_paused(name, url, paused=False, as_json=as_json)


@queues.command()
def clear(
    name: NameArgument,
    *,
    status: Annotated[str, typer.Option(help="waiting, delayed, completed, failed or cancelled.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Delete all jobs of one status. They are gone for good; who waits for one of them hears so."""
    from headrace.queue import CLEARABLE

    if status not in CLEARABLE:
        fail(f"--status {status}: expected one of {', '.join(CLEARABLE)}. Cancel active jobs instead.", EXIT_USAGE)
    if not yes:
        _ask(name, status, url, asks=is_terminal() and not as_json)

    async def work(app: Headrace) -> int:
        await known(app, name)
        return await app.queue(name).clear(status)

    cleared = with_app(url, work)
    if as_json:
        print_json({"queue": name, "status": status, "cleared": cleared})
    else:
        typer.echo(f"Deleted {_jobs(cleared, status)} of queue '{name}'.")


@queues.command()
def retry(name: NameArgument, *, as_json: JsonOption = False, url: UrlOption = None) -> None:
    """Put all dead jobs back with all their attempts; those in a dead-letter queue go back where they came from."""

    async def work(app: Headrace) -> int:
        from headrace.queue import Queue

        await known(app, name)
        others = [other for other in await app.store.queue_names(app.user) if other != name]
        # Why: without the tasks nobody knows which dead-letter queue is theirs, so that all queues are looked through.
        return await Queue(name, app.store, lambda: app.user, app, lambda _: others).retry_failed()

    retried = with_app(url, work)
    if as_json:
        print_json({"queue": name, "retried": retried})
    else:
        typer.echo(f"Put {_jobs(retried, 'dead')} back.")


def _set_paused(name: str, url: str | None, *, paused: bool, as_json: bool) -> None:
    async def work(app: Headrace) -> bool:
        queue: Queue = app.queue(name)
        return await (queue.pause() if paused else queue.resume())

    changed = with_app(url, work)
    if as_json:
        print_json({"queue": name, "paused": paused, "changed": changed})
        return
    state = "paused" if paused else "running"
    typer.echo(f"Queue '{name}' is {state}." if changed else f"Queue '{name}' was {state} already.")


def _ask(name: str, status: str, url: str | None, *, asks: bool) -> None:
    """Ask before jobs are deleted; where nobody can answer, say which option says yes."""
    if not asks:
        fail(f"clear deletes all {status} jobs of queue '{name}'. Add --yes to say that this is wanted.", EXIT_USAGE)

    async def look(app: Headrace) -> QueueStats:
        return await known(app, name)

    count = getattr(with_app(url, look), status)
    # Why: the completed count is a total; how many outcomes are kept is not counted apart.
    what = f"all {status} jobs" if status == "completed" else _jobs(count, status)
    typer.confirm(f"Delete {what} of queue '{name}' for good?", abort=True)


def count_served(workers: Mapping[str, WorkerFacts]) -> Counter[str]:
    """Return by queue how many live workers serve it."""
    return Counter(queue for facts in workers.values() for queue in facts.queues)


async def _nothing_here(app: Headrace) -> list[str]:
    """Say where there is no queue, and where else on this server there are some."""
    from headrace.cli.job_view import printable
    from headrace.fleet.nearby import look_nearby

    address, prefix = app.pool.address, app.settings.prefix
    nearby = await look_nearby(app.control, prefix, address.database)
    # Why: a prefix is whatever somebody has named a key.
    found = [printable(sentence, limit=None) for sentence in nearby.sentences]
    return [f"No queue was ever used below prefix '{prefix}' at {address}.", *found]


async def known(app: Headrace, name: str) -> QueueStats:
    """Return the stats of a queue, or end the command when it was never used: its name is then mistyped."""
    found = await app.queue(name).stats()
    if not any(asdict(found).values()) and (doubtful := await doubt(app, name)):
        fail(doubtful)
    return found


async def doubt(app: Headrace, name: str) -> str:
    """Say that a queue was never used, and what was meant; an empty text for one that was."""
    import difflib

    names = [other.name for other in await app.queues()]
    if name in names:
        return ""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else "See `headrace queues list`."
    return f"Queue '{name}' was never used. {hint}"


def _as_json(name: str, stats: QueueStats) -> dict[str, Any]:
    return {"queue": name, **asdict(stats)}


def _row(name: str, stats: QueueStats, served: int) -> tuple[object, ...]:
    from headrace.reason import span

    counts = [getattr(stats, count) for count in _COUNTS]
    oldest = span(stats.oldest_ms) if stats.waiting else None
    return (name, *counts, stats.paused, served, stats.throughput, f"{100 * stats.error_rate:.1f} %", oldest)


def _as_facts(name: str, stats: QueueStats, served: int) -> list[tuple[str, object]]:
    from headrace.reason import span

    return [
        ("queue", name),
        ("paused", stats.paused),
        *((count, getattr(stats, count)) for count in _COUNTS),
        ("retried", stats.retried),
        ("stalled", stats.stalled),
        ("throughput", f"{stats.throughput:.2f} jobs/s over the last minute or two"),
        ("error rate", f"{100 * stats.error_rate:.1f} % of the attempts of the last hour"),
        ("average", f"{stats.avg_ms:.1f} ms an attempt, over the last hour"),
        ("oldest", f"waits for {span(stats.oldest_ms)}" if stats.waiting else None),
        ("workers", f"{served} serve it, {stats.workers} hold jobs of it"),
    ]


def _jobs(count: int, status: str) -> str:
    return f"{count:,} {status} job{'' if count == 1 else 's'}"
