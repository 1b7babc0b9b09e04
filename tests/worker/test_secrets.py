"""No line of the log holds what a job was called with or what came of it, whatever goes wrong, at the lowest level."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Fixed
from headrace.errors import ArgumentError, EncodingError, JobFailed
from headrace.logs import setup_logs
from headrace.settings import load_settings
from tests.live import DEADLINE, opened, working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace import Headrace, Job

SECRET = "s3cr3t-4rgument"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    setup_logs(load_settings({"log_level": "DEBUG"}, environ={}, dotenv=None), stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_arguments_and_results_stay_out_of_the_log(
    make_app: Callable[..., Headrace], stream: io.StringIO
) -> None:
    app = make_app(loop_lag_warn=0.01)

    @app.task(name="give", keep_result=60.0)
    async def give(secret: str) -> str:
        return secret

    @app.task(name="fail", attempts=2, backoff=Fixed(0.0))
    async def fail(secret: str) -> None:
        raise ValueError(f"no, {len(secret)}")

    @app.task(name="huge", attempts=1)
    async def huge(secret: str) -> list[object]:
        return [secret, object()]

    @app.task(name="slow", attempts=1, timeout=0.05)
    async def slow(secret: str) -> None:
        await asyncio.sleep(60 + len(secret))

    @app.task(name="plain", attempts=1)
    def plain(secret: str) -> str:
        return secret

    async with opened(app), working(app):
        for wrong in ((SECRET, SECRET), ()):
            with pytest.raises(ArgumentError):
                await give.enqueue(*wrong)
        with pytest.raises(EncodingError):
            await give.enqueue([SECRET, object()])  # type: ignore[arg-type]  # the mistake under test
        jobs: list[Job[Any]] = [await task.enqueue(SECRET) for task in (give, plain, fail, huge, slow)]
        ends = await asyncio.gather(*(job.result(timeout=DEADLINE) for job in jobs), return_exceptions=True)

    assert [type(end) for end in ends] == [str, str, JobFailed, JobFailed, JobFailed]
    assert "worker started" in stream.getvalue()
    assert SECRET not in stream.getvalue()
