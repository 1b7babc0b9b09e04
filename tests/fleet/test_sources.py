"""A bad setting is refused by a real worker, whatever its source: with name, value, what is allowed, and the place."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import pytest

from headrace.settings_fleet import encode_version
from headrace.store.versions import Versions
from tests.live import DEADLINE, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace import Headrace

SHOP = """\
from headrace import Headrace
app = Headrace({arguments})
@app.task(queue="shop")
async def sell() -> None: ...
"""


async def work(folder: Path, app: Headrace, arguments: str = "", **variables: str) -> tuple[int, str]:
    """Run `headrace worker --burst` in a folder; returns its code and what it printed."""
    (folder / "shop.py").write_text(SHOP.format(arguments=arguments))
    environment = {
        **os.environ, "REDIS_URL": app.settings.redis_url or "", "HEADRACE_PREFIX": app.settings.prefix, **variables,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", "worker", "shop:app", "--burst", cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    return process.returncode or 0, printed.decode()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("argument", "threads=0: expected a whole number from 1 to 1000. Correct the argument"),
        (
            "environment",
            "HEADRACE_THREADS='many': expected a whole number from 1 to 1000. Correct it in the environment",
        ),
        (".env", "HEADRACE_THREADS='many': expected a whole number from 1 to 1000. Correct it in .env"),
    ],
)
async def test_a_worker_with_a_bad_setting_of_its_own_ends_with_code_2(
    make_app: Callable[..., Headrace], tmp_path: Path, source: str, expected: str
) -> None:
    app = make_app()
    if source == ".env":
        (tmp_path / ".env").write_text("HEADRACE_THREADS=many\n")
    environment = {"HEADRACE_THREADS": "many"} if source == "environment" else {}
    arguments = "settings={'threads': 0}" if source == "argument" else ""

    code, printed = await work(tmp_path, app, arguments, **environment)

    assert code == 2
    assert expected in printed
    assert "Traceback" not in printed


async def test_a_worker_that_starts_on_a_bad_setting_of_the_fleet_says_so_and_works_with_its_own(
    make_app: Callable[..., Headrace], tmp_path: Path
) -> None:
    app = make_app()

    @app.task(name="shop.sell", queue="shop")
    async def sell() -> None: ...

    async with opened(app):
        bad = encode_version({"HEADRACE_THREADS": "many", "QUEUE_CONCURRENCY": "3"}, "x", "")
        await Versions(app.store).write(app.control, 0, bad)
        await sell.enqueue()

        code, printed = await work(tmp_path, app)
        stats = await app.queue("shop").stats()

    assert code == 0
    assert "settings of the fleet refused; the old ones stay" in printed
    assert "HEADRACE_THREADS='many': expected a whole number from 1 to 1000. Correct it in version 1 of" in printed
    assert '"concurrency": 100' in printed
    assert (stats.completed, stats.waiting) == (1, 0)
