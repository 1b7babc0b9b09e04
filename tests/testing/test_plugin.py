"""The fixtures that pytest finds by itself, as a project that uses Headrace has them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SHOP = """
from headrace import Headrace

app = Headrace("redis://production.example:6379/0")
sent = []

@app.task
async def send(to: str) -> str:
    sent.append(to)
    return f"sent to {to}"

async def place_order(to: str):
    return await send.enqueue(to)
"""
TESTS = """
import asyncio
import shop
from headrace.testing import inline, run_until_idle

def test_an_order_is_confirmed_inline():
    async def test():
        with inline(shop.app) as ran:
            job = await shop.place_order("ann")
            assert await job.result() == "sent to ann"
        assert [job.arguments for job in ran.ran(shop.send)] == [("ann",)]
    asyncio.run(test())

def test_an_order_is_confirmed_on_a_server(headrace_connected, headrace_server):
    async def test():
        async with headrace_connected(shop.app) as app:
            assert app.settings.redis_url == headrace_server.url
            job = await shop.place_order("bob")
            await run_until_idle(app)
            assert await job.result(timeout=5) == "sent to bob"
    asyncio.run(test())

def test_the_next_test_finds_it_empty(headrace_connected):
    async def test():
        async with headrace_connected(shop.app) as app:
            assert await app.queues() == []
    asyncio.run(test())
"""
#: What a project without Headrace in its tests must not pay for.
HEAVY = ("asyncio", "hiredis", "msgspec", "redis", "headrace.app", "headrace.testing")


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # Only this plugin: others may import what is looked for.
    command = [sys.executable, "-m", "pytest", "-p", "headrace.pytest_plugin", "-p", "no:cacheprovider", "-q", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=60)


def test_a_project_tests_its_jobs_without_a_change_to_them(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS)

    done = run_pytest(tmp_path, "-W", "error")

    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_entered_for_pytest(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "headrace_server" in done.stdout
    assert "headrace_connected" in done.stdout


def test_loading_the_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        f"import sys\ndef test_it():\n    assert [name for name in {HEAVY!r} if name in sys.modules] == []\n"
        "    assert 'headrace.pytest_plugin' in sys.modules\n"
    )

    done = run_pytest(tmp_path)

    assert "1 passed" in done.stdout, done.stdout + done.stderr
