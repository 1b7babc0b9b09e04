"""A line that was folded is reported when its interval ends, also when nothing else is logged."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from headrace.logs import find_handler, setup_logs
from headrace.settings import load_settings
from tests.live import opened, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace import Headrace


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    setup_logs(load_settings({"log_format": "json", "log_fold": 0.05}, environ={}, dotenv=None), stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stream.getvalue().splitlines()) if line["logger"] == "headrace.sample"]


async def test_a_folded_line_is_reported_on_time_in_an_app_that_says_nothing_else(
    make_app: Callable[..., Headrace], stream: io.StringIO
) -> None:
    app = make_app(log_fold=0.05)
    async with opened(app):
        for _ in range(3):
            logging.getLogger("headrace.sample").warning("server away")
        await asyncio.to_thread(logging.getLogger("headrace.sample").warning, "server away")

        async def reported() -> bool:
            return len(lines(stream)) == 2

        await until(reported, "the report")

    handler = find_handler()
    assert handler is not None
    assert handler.waits is None
    assert [line.get("repeated") for line in lines(stream)] == [None, 3]


async def test_of_two_apps_in_a_process_one_reports(make_app: Callable[..., Headrace], stream: io.StringIO) -> None:
    first, second = make_app(log_fold=0.05), make_app(log_fold=0.05)
    async with opened(first), opened(second):
        for _ in range(2):
            logging.getLogger("headrace.sample").warning("server away")

        async def reported() -> bool:
            return len(lines(stream)) == 2

        await until(reported, "the report")
