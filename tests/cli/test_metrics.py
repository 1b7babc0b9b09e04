"""`headrace metrics` prints the queues of a server, and nothing of its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Command, run_with

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: pip install 'headrace[metrics]'")

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace


def test_the_queues_are_printed_once(
    make_app: Callable[..., Headrace], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.telemetry.scraped import Scraped  # noqa: PLC0415 - it needs the library

    app = make_app()

    @app.task(name="nothing", queue="mail")
    async def nothing() -> None: ...

    run_with(app, lambda: nothing.enqueue_many([((), {})] * 3))

    done = Command(app, capsys, monkeypatch)("metrics")

    found = Scraped(done.out)
    found.check()
    assert (done.code, done.err) == (0, "")
    assert found.value("headrace_queue_jobs", queue="mail", status="waiting") == 3
    assert found.value("headrace_queue_consumers", queue="mail") == 0
    assert {name for name in found.families if "queue" not in name} == {"headrace_build_info", "headrace_server_up"}
