"""Run one worker of an app in this process until SIGTERM; a line on standard output for each thing that happened."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace import Headrace


def say(what: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"what": what, **fields}) + "\n")
    sys.stdout.flush()


class Sayer(logging.Handler):
    """Say each record of the log with its fields."""

    plain = frozenset(vars(logging.makeLogRecord({})))

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: str(value) for name, value in vars(record).items() if name not in self.plain}
        say("log", message=record.getMessage(), level=record.levelname, **extra)
        if record.exc_info:
            sys.stderr.write(logging.Formatter().formatException(record.exc_info) + "\n")


async def main(build: str, queues: str, concurrency: str) -> None:
    module, _, name = build.partition(":")
    app: Headrace = getattr(importlib.import_module(module), name)()
    worker = app.worker(queues.split(","), None if concurrency == "None" else int(concurrency))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    running = asyncio.ensure_future(worker.run())
    started = asyncio.ensure_future(worker.signals.started.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    say("ready", id=worker.id)
    stats = await running
    say("stopped", census=[str(row) for row in app.census()], **asdict(stats))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, handlers=[Sayer()])
    asyncio.run(main(*sys.argv[1:]))
