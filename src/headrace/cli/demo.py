"""The command `headrace demo`: real work through real processes, one of which is killed, with nothing lost."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.interrupt import run_interruptibly
from headrace.cli.output import EXIT_FAILED, JsonOption, print_json
from headrace.errors import OptionError

if TYPE_CHECKING:
    from headrace.demo.display import Display
    from headrace.demo.scene import DemoReport


def demo(
    *,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=200_000, help="Number of file jobs; else a job a file. Files repeat."),
    ] = None,
    as_json: JsonOption = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Write a picture of the account to this file too.", dir_okay=False)
    ] = None,
) -> None:
    """Count the source files of this Python, a job a file, in two worker processes, and kill one in the middle.

    The exit code is 0 only if no job was lost and every number agrees with a recount of the same files in one process.
    It uses REDIS_URL, or else a server of its own, below a key prefix of its own, and leaves nothing behind.
    """
    if svg is not None and not svg.parent.is_dir():
        raise OptionError(f"--svg {svg}: there is no folder {svg.parent}. Make it first, or name another file.")
    from headrace.demo.display import NoDisplay, make_console, make_display, print_report, write_svg

    console = make_console()
    report = run_interruptibly(lambda: _run(jobs, NoDisplay() if as_json else make_display(console)), "demonstration")
    if as_json:
        print_json(report)
    else:
        print_report(report, console)
    if svg is not None:
        write_svg(report, svg)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


async def _run(jobs: int | None, display: Display) -> DemoReport:
    from headrace.demo.run import run_demo

    with display:
        return await run_demo(jobs=jobs, show=display.show, interval=display.interval)
