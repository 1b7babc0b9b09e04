"""Which commands there are, and how one is loaded when it is used.

The table below holds what `headrace --help` shows, so that help imports no command. A new command is one file in
`headrace/cli/` and one line here.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from headrace.cli.output import exit_on_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typer._click import Command, Context


_NOBODY: Final = logging.NullHandler()


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: `name` of `module`, which is a function or a `typer.Typer`.

    Attributes:
        module: Module below `headrace.cli`.
        help: What `headrace --help` says of it, in at most 60 characters.
    """

    module: str
    help: str


COMMANDS: Final[dict[str, Entry]] = {
    "demo": Entry("demo", "Run real work through worker processes, and kill one of them."),
    "worker": Entry("worker", "Run the jobs of an app."),
    "top": Entry("top", "Watch the fleet: queues, processes, timers, memory."),
    "queues": Entry("queues", "Look at queues and control them."),
    "jobs": Entry("jobs", "Look at jobs and control them."),
    "metrics": Entry("metrics", "Print the figures of all queues for Prometheus."),
    "health": Entry("health", "Say how the server is, why, and what to do."),
    "verify": Entry("verify", "Prove settings, server and engine, under load and faults."),
    "doctor": Entry("doctor", "Examine settings and server, without load."),
    "pool": Entry("pool", "Size the connection pools of the fleet."),
    "bench": Entry("bench", "Measure jobs here, and the incident before and after."),
    "config": Entry("config", "Look at the settings, and change those of the fleet."),
    "server": Entry("server", "Run the default server until Ctrl+C."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and first sentence, and imports the one that is used."""

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002 - the base class says so
        """Name the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:  # noqa: ARG002 - the base class says so
        """Return what help needs to know of a command, without importing it."""
        entry = COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=entry.help) if entry else None

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """Import the command that the arguments name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and command else None, rest

    def invoke(self, ctx: Context) -> Any:
        """Run a command; an error of Headrace becomes one sentence and an exit code."""
        # Why: a command says itself what is wrong, and Python prints what a library logs to nobody. `headrace worker`
        # sets up its log.
        logging.getLogger("headrace").addHandler(_NOBODY)
        with exit_on_error():
            return super().invoke(ctx)


def load_command(name: str) -> Command:
    """Import a command of the table.

    Args:
        name: One of `COMMANDS`.
    """
    found: Any = getattr(importlib.import_module(f"headrace.cli.{COMMANDS[name].module}"), name)
    holder = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    else:
        holder.command(name)(found)
    return typer.main.get_group(holder).commands[name]


def make_group(commands: Sequence[str] = tuple(COMMANDS)) -> LazyGroup:
    """Build the command `headrace`.

    Args:
        commands: What is offered when a name is mistyped.
    """
    # Why no markup: help and errors stay plain lines anywhere, and `--help` does without importing rich.
    app = typer.Typer(
        name="headrace",
        cls=LazyGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_headrace)
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)  # noqa: S101 - asked for by cls=
    # Why: the base class looks here for names that are like a mistyped one.
    group.commands.update({name: TyperCommand(name, help=COMMANDS[name].help) for name in commands})
    return group


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the callback of an option
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


def _headrace(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run and look after a job queue on Redis or Valkey. Settings: `headrace config show`."""
