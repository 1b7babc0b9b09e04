"""`headrace worker --reload`: restart the worker processes when a .py file below the current folder changes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.census import Census
from headrace.errors import OptionError

if TYPE_CHECKING:
    from headrace.worker.supervisor import Supervisor

logger = logging.getLogger(__name__)


async def run_reloading(supervisor: Supervisor) -> None:
    """Run a supervisor, and restart its children one after another after each change of a .py file.

    Raises:
        OptionError: The package watchfiles is not installed.
    """
    try:
        import watchfiles
    except ModuleNotFoundError as error:
        text = "--reload needs the package watchfiles, which is not installed"
        raise OptionError(f"{text}. Install it: pip install 'headrace[reload]'.") from error
    folder = Path.cwd()
    end = asyncio.Event()

    async def watch() -> None:
        logger.info("watching for changes", extra={"folder": str(folder)})
        async for changes in watchfiles.awatch(folder, watch_filter=watchfiles.PythonFilter(), stop_event=end):
            names = sorted({str(Path(path).relative_to(folder)) for _, path in changes})
            logger.info("code changed; restarting", extra={"files": ", ".join(names[:5]), "changes": len(names)})
            supervisor.restart()

    watching = Census().create_task(watch(), name="watch for changes", owner="reload")
    try:
        await supervisor.run()
    finally:
        end.set()
        await asyncio.gather(watching, return_exceptions=True)
