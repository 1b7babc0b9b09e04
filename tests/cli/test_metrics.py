"""`headrace metrics` prints the queues of a server, and nothing of its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headrace.keys import queues_key
from headrace.server import start_private_server
from tests.cli.command import Command, run_with
from tests.live import fresh_app
from tests.support.sick import send

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: pip install 'headrace[metrics]'")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


@pytest.mark.parametrize(
    ("rights", "refused"), [(("+@all", "~other:*"), "SMEMBERS: NOPERM"), (("+@all", "-hlen", "~*"), "stats: ERR")]
)
def test_a_user_that_may_not_see_the_queues_is_told_so(
    rights: tuple[str, ...],
    refused: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_private_server(tmp_path / "own", extra=("--appendonly", "no", "--save", "")) as own:
        command = Command(fresh_app(own.url), capsys, monkeypatch)
        send(own.url, "ACL", "SETUSER", "guest", "on", ">secret", "&*", *rights)
        send(own.url, "SADD", queues_key("headrace"), "mail")
        monkeypatch.setenv("HEADRACE_PREFIX", "headrace")
        command.url = own.url.replace("://", "://guest:secret@")

        done = command("metrics")

    assert (done.code, done.out) == (1, "")
    assert f"refused {refused}" in done.err
    assert "Give the user in REDIS_URL this right (ACL SETUSER), or name another one." in done.err
