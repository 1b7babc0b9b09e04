"""The command `headrace server`: run the default server in the foreground."""

from __future__ import annotations

import select
import signal
import socket
from contextlib import closing, contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.server import ServerUse

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def server(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder of the data, the log and the socket; else HEADRACE_DATA_DIR."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Listen on this port of 127.0.0.1 too; else on a socket only."),
    ] = None,
) -> None:
    """Run the default server until Ctrl+C, and share it with every process that names the same folder."""
    from headrace.cli.output import exit_on_error
    from headrace.server import ensure_server
    from headrace.settings import load_settings

    with exit_on_error():
        folder = load_settings().data_dir if data_dir is None else data_dir
        # Why: the signals are caught before the start, so that one that comes during it stops what was started.
        with _stop_signals() as stopped, ensure_server(folder, linger=0.0) as use:
            _serve(use, port, stopped)


@contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """Turn SIGINT and SIGTERM into bytes on the socket that this yields."""
    reader, writer = socket.socketpair()
    with closing(reader), closing(writer):
        writer.settimeout(0)
        handlers = {number: signal.signal(number, lambda _number, _frame: None) for number in STOP_SIGNALS}
        wakeup_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(wakeup_fd)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _serve(use: ServerUse, port: int | None, stopped: socket.socket) -> None:
    from headrace.server.port import close_port, open_port

    if port is not None:
        open_port(use.socket_path, port)
        typer.echo(f"url      redis://127.0.0.1:{port}/0")
    typer.echo(f"url      {use.url}")
    typer.echo(f"product  {use.binary.product}")
    typer.echo(f"version  {'.'.join(map(str, use.binary.version))} ({use.binary.origin}: {use.binary.path})")
    typer.echo(f"folder   {use.data_dir}")
    typer.echo(f"pid      {use.pid}")
    typer.echo("Ctrl+C stops it.")
    while stopped.fileno() not in select.select([stopped.fileno(), use.fileno()], [], [])[0]:
        if not use.alive:
            typer.echo(
                "The process that watched over the server has died, and the server with it. Its data are kept.",
                err=True,
            )
            raise typer.Exit(1)
        typer.echo(f"The server ended by itself and was started again as pid {use.pid}.")
        if port is not None:
            open_port(use.socket_path, port)
    if port is not None:
        close_port(use.socket_path)
    others = use.release_and_wait()
    if others:
        typer.echo(f"Released. The server goes on for {others} other process{'es' if others > 1 else ''}.")
    else:
        typer.echo("Stopped. Its data are kept.")
