"""Each page on migrating is followed with the other system beside Headrace: what was enqueued there runs here."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest
import redis

from headrace import Headrace
from headrace.server import start_private_server
from tests.migrating.old_systems import Missing, OldReader, prepare
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

PAGES: Final = ROOT / "docs" / "migrating"
HOUR: Final = 3_600.0
#: What the jobs of the page that were moved resulted in, beside the one that Headrace had itself.
RESULTS: Final = {
    "celery": ["10 characters to ann@example.com", "8 characters to cy@example.com"],
    "rq": ["10 characters to ann@example.com", "4 characters to dan@example.com"],
    "arq": ["10 characters to ann@example.com"],
    "bullmq": [
        "10 characters to ann@example.com",
        "8 characters to cy@example.com",
        "9 characters to ida@example.com",
    ],
}
#: How the keys of a system start, as index.md says; the lists of Celery are named as its queues.
KEYS: Final = {
    "celery": ("_kombu.", "celery-task-meta-", "unacked", "mail"),
    "rq": ("rq:",),
    "arq": ("arq:",),
    "bullmq": ("bull:",),
}


@pytest.fixture(scope="module")
def environments() -> dict[str, Path | Missing]:
    """Those of all the other systems."""
    return prepare(["celery", "rq", "arq", "node"])


@pytest.fixture
def tcp_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server of the page alone, with a port, since Celery reads no `unix://`."""
    with start_private_server(tmp_path / "server", port=0, extra=("--appendonly", "no", "--save", "")) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the reader writes the files of the page."""
    made = tmp_path / "page"
    made.mkdir()
    return made


async def check_moved(system: str, url: str, started_at: float) -> None:
    """Look at what the page's jobs did, resulted in, and when the one of the old system is due."""
    app = Headrace(url)

    @app.task(name="shop.send_mail", queue="mail")
    async def send_mail(to: str, body: str) -> str:
        return f"{to}{body}"

    async with app:
        queue = app.queue("mail")
        completed = (await queue.jobs("completed")).jobs
        results = sorted([str(await job.result(timeout=5.0)) for job in completed])
        delayed = [(await job.refresh()).details for job in (await queue.jobs("delayed")).jobs]
        stats = await queue.stats()
    own = f"10 characters to {'gus' if system == 'bullmq' else 'fay'}@example.com"
    assert results == sorted([*RESULTS[system], own])
    assert (stats.waiting, stats.failed, stats.paused) == (0, 0, False)
    with redis.Redis.from_url(url, decode_responses=True) as client:
        others = {key for key in client.scan_iter() if not key.startswith("headrace:")}
    assert others
    assert all(key.startswith(KEYS[system]) for key in others), others
    now = time.time()
    # RQ notes whole seconds.
    due = [details.due_at for details in delayed if details and details.due_at]
    assert len(due) == 2
    assert all(started_at + HOUR - 1.0 <= one <= now + HOUR for one in due), (due, started_at, now)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("system", ["celery", "rq", "arq"])
async def test_what_waits_in_the_old_queue_runs_in_headrace(
    system: str, environments: dict[str, Path | Missing], tcp_server: PrivateServer, folder: Path
) -> None:
    programs = found_or_skip(environments[system])
    started_at = time.time()

    found = OldReader(folder, tcp_server.url, programs=programs).follow_all(page(system))

    assert not found, "\n\n".join(found)
    await check_moved(system, tcp_server.url, started_at)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_what_waits_in_a_queue_of_node_runs_in_headrace(
    environments: dict[str, Path | Missing], tcp_server: PrivateServer, folder: Path
) -> None:
    (folder / "node_modules").symlink_to(found_or_skip(environments["node"]), target_is_directory=True)
    started_at = time.time()

    found = OldReader(folder, tcp_server.url).follow_all(page("bullmq"))

    assert not found, "\n\n".join(found)
    check_syntax(folder / "old_worker.mjs")
    await check_moved("bullmq", tcp_server.url, started_at)


def found_or_skip(environment: Path | Missing) -> Path:
    """Return the folder of an environment; without one the test is skipped."""
    if isinstance(environment, Missing):
        pytest.skip(environment.reason)
    return environment


def check_syntax(script: Path) -> None:
    """Let Node read a script that is only shown."""
    subprocess.run(["node", "--check", script], check=True)


def page(system: str) -> str:
    """Return the text of a page."""
    return (PAGES / f"{system}.md").read_text()


@pytest.mark.parametrize("system", sorted(KEYS))
def test_the_common_page_names_the_keys_of_each_system(system: str) -> None:
    text = page("index")

    assert [start for start in KEYS[system] if start != "mail" and f"`{start}" not in text] == []
