"""The computed tables of docs/operating are what the code computes, and what a server bears out."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace
from headrace.server import start_private_server
from tests.deploy.tables import BESIDE, BORROWED, JOB_BYTES, fleet_row, maximum_for, pages
from tests.support.raw import Raw
from tests.tidy.tree import ROOT, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

PAYLOAD = "x" * 200


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server whose maxclients and memory a test may change and read."""
    with start_private_server(tmp_path, extra=("--appendonly", "no", "--save", "")) as running:
        yield running


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_the_tables_are_what_the_code_computes(path: Path) -> None:
    assert path.read_text() == pages()[path], "run: python -m tests.deploy.tables"


@pytest.mark.parametrize("column", range(len(BORROWED)))
async def test_a_fleet_of_the_table_fits_at_its_maxclients_and_no_longer_at_one_less(
    own_server: PrivateServer, prefix: str, column: int
) -> None:
    processes, slots = 2, 50
    _, _, *figures = (int(cell.replace(",", "")) for cell in fleet_row(processes, slots))
    maximum, places, maxclients = figures[3 * column : 3 * column + 3]
    assert maximum == maximum_for(slots, BORROWED[column])
    settings: dict[str, Any] = {"prefix": prefix, "redis_max_connections": maximum}

    with Raw(own_server.url) as raw:
        raw("CONFIG", "SET", "maxclients", maxclients)
        async with AsyncExitStack() as stack:
            apps = [Headrace(own_server.url, settings=settings) for _ in range(processes + BESIDE)]
            for app in apps:
                await stack.enter_async_context(app)
            fits = await apps[-1].sizing()
            raw("CONFIG", "SET", "maxclients", maxclients - 1)
            tight = await apps[-1].sizing()

    assert (fits.places, fits.verdict, tight.verdict != "fits") == (places, "fits", True)


async def test_a_waiting_job_takes_what_the_table_counts(own_server: PrivateServer) -> None:
    app = Headrace(own_server.url)

    @app.task(queue="mail")
    async def send(_number: int, _text: str) -> None: ...

    async with app:
        with Raw(own_server.url) as raw:
            await send.enqueue(0, PAYLOAD)
            before = used(raw)
            await send.enqueue_many([((number, PAYLOAD), {}) for number in range(20_000)])
            each = (used(raw) - before) / 20_000

    # A table of keys doubles now and then, so that one job takes more or less.
    assert JOB_BYTES * 0.8 < each < JOB_BYTES * 1.25
    assert f"{JOB_BYTES} bytes |" in (ROOT / "docs/benchmarks.md").read_text()


def used(raw: Raw) -> int:
    text: str = raw("INFO", "memory").decode()
    return int(text.partition("used_memory:")[2].split()[0])
