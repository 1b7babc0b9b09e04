"""The command `headrace jobs`: list, show, cancel, retry, why. It needs no code of the user."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace.cli.connect import UrlOption, with_app
from headrace.cli.output import JsonOption, fail, print_facts, print_json, print_table

if TYPE_CHECKING:
    from headrace.app import Headrace
    from headrace.cli.job_view import JobView
    from headrace.job import Job
    from headrace.reason import Reason
    from headrace.store.replies import Found

jobs = typer.Typer(name="jobs", help="Look at jobs and control them.", no_args_is_help=True)

#: Queues that are looked through for a job when none is named.
MAX_QUEUES: Final = 1_000
#: Questions that travel together.
TOGETHER: Final = 100

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.")]
QueueOption = Annotated[
    str | None,
    typer.Option("--queue", "-q", help="Queue of the job; without one, all known queues are looked through."),
]
StatusOption = Annotated[
    str, typer.Option("--status", "-s", help="waiting, delayed, active, completed, failed or cancelled.")
]


@jobs.command(name="list")
def list_(
    *,
    queue: Annotated[str, typer.Option("--queue", "-q", help="Queue to list.")],
    status: StatusOption = "waiting",
    limit: Annotated[int, typer.Option("--limit", "-n", help="Jobs a page, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the last page ended, as it said.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """List jobs of one status, a page at a time: waiting ones as they will run, ended ones with the newest first."""

    async def look(app: Headrace) -> tuple[list[JobView], str | None, str]:
        from headrace.cli.job_view import JobView
        from headrace.cli.queues import doubt

        page = await app.queue(queue).jobs(status, cursor=cursor, limit=limit)
        views: list[JobView] = []
        for at in range(0, len(page.jobs), TOGETHER):
            part = page.jobs[at : at + TOGETHER]
            founds = await asyncio.gather(*(app.find(queue, job.id) for job in part))
            # Why: a job may have moved on since it was listed.
            views += [
                JobView(job.id, queue, one) for job, one in zip(part, founds, strict=True) if one.status == status
            ]
        return views, page.cursor, "" if page.jobs or cursor else await doubt(app, queue)

    found, following, doubtful = with_app(url, look)
    if as_json:
        rows = [view.as_json() for view in found]
        print_json({"queue": queue, "status": status, "jobs": rows, "cursor": following})
        return
    if found:
        print_table(
            ("id", "task", "priority", "attempts", "enqueued", *found[0].when_name), [one.row() for one in found]
        )
    else:
        where = " on this page" if cursor or following else ""
        typer.echo(f"No {status} jobs in queue '{queue}'{where}.{doubtful and ' ' + doubtful}")
    if following is not None:
        typer.echo(f"More: --cursor {following}")


@jobs.command()
def show(
    job_id: IdArgument,
    *,
    queue: QueueOption = None,
    arguments: Annotated[
        bool, typer.Option("--arguments", help="Show the arguments too; they may be private.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show what is known of a job: its state, its failures with tracebacks, its log lines, its result."""

    async def look(app: Headrace) -> tuple[JobView, list[str]]:
        from headrace.cli.job_view import JobView

        job, found = await locate(app, job_id, queue)
        return JobView(job_id, job.queue, found), await job.log_lines()

    view, log = with_app(url, look)
    if as_json:
        print_json(view.as_json(log=log, arguments=arguments))
    else:
        print_facts(view.facts(log=log, arguments=arguments))


@jobs.command()
def cancel(
    job_id: IdArgument, *, queue: QueueOption = None, as_json: JsonOption = False, url: UrlOption = None
) -> None:
    """Cancel a job: one that waits never runs, one that runs is told to stop. The exit code is 1 when it had ended."""

    async def work(app: Headrace) -> tuple[Job[Any], bool, str]:
        job, found = await locate(app, job_id, queue)
        done = await job.cancel()
        return job, done, job.status if done and job.status == "cancelled" else found.status

    job, done, status = with_app(url, work)
    if as_json:
        print_json({"id": job_id, "queue": job.queue, "cancelled": done, "status": status})
    elif done and status == "cancelled":
        typer.echo(f"Job {job_id} of queue '{job.queue}' was cancelled.")
    elif done:
        typer.echo(f"Job {job_id} of queue '{job.queue}' runs; its worker was told to stop it.")
    if not done:
        fail(f"Job {job_id} of queue '{job.queue}' had ended already: {status}.")


@jobs.command()
def retry(job_id: IdArgument, *, queue: QueueOption = None, as_json: JsonOption = False, url: UrlOption = None) -> None:
    """Put a dead or cancelled job back, with all its attempts. The exit code is 1 when it is neither."""

    async def work(app: Headrace) -> tuple[Job[Any], bool, str]:
        job, found = await locate(app, job_id, queue)
        return job, await job.retry(), found.status

    job, done, status = with_app(url, work)
    if as_json:
        print_json({"id": job_id, "queue": job.queue, "retried": done, "status": "waiting" if done else status})
    elif done:
        typer.echo(f"Job {job_id} waits in queue '{job.queue}' again.")
    if not done:
        fail(f"Job {job_id} of queue '{job.queue}' is {status}. Only dead (failed) and cancelled jobs are put back.")


@jobs.command()
def why(job_id: IdArgument, *, queue: QueueOption = None, as_json: JsonOption = False, url: UrlOption = None) -> None:
    """Say why a job is where it is, and not running yet if it is not."""

    async def look(app: Headrace) -> tuple[str, str, Reason]:
        from headrace.reason import explain

        job, found = await locate(app, job_id, queue)
        return job.queue, found.status, explain(found, await app.surroundings(job.queue, job_id, found))

    place, status, reason = with_app(url, look)
    if as_json:
        print_json({"id": job_id, "queue": place, "status": status, "code": reason.code, "text": reason.text})
    else:
        from headrace.cli.job_view import printable

        typer.echo(printable(reason.text))


async def locate(app: Headrace, job_id: str, queue: str | None) -> tuple[Job[Any], Found]:
    """Find a job: in the queue that is named or in a dead-letter queue it went to, else in all known queues.

    Raises:
        JobNotFound: It is in none of them.
        OptionError: There are too many queues to look through.
    """
    from headrace.errors import JobNotFound, OptionError

    if queue is not None:
        found = await app.find(queue, job_id)
        if found.status != "missing":
            return app.queue(queue).job(job_id), found
    names = await app.store.queue_names(app.user)
    if len(names) > MAX_QUEUES:
        text = f"job {job_id}: there are {len(names):,} queues, and at most {MAX_QUEUES:,} are looked through"
        raise OptionError(text + ". Name the queue with -q.")
    for at in range(0, len(names), TOGETHER):
        part = names[at : at + TOGETHER]
        answers = await asyncio.gather(*(app.store.find(app.user, name, job_id) for name in part))
        for name, found in zip(part, answers, strict=True):
            if found.status != "missing" and queue in {None, found.state.origin}:
                return app.queue(name).job(job_id), found
    known = "the one known queue" if len(names) == 1 else f"the {len(names)} known queues"
    where = f"queue '{queue}'" if queue else f"{known} below prefix '{app.settings.prefix}' at {app.pool.address}"
    text = f"job {job_id} is not in {where}: it never was, or it completed and its outcome is not kept"
    raise JobNotFound(text + ". Set keep_result= on the task to keep outcomes longer.")
