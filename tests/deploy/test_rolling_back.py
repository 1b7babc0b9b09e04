"""What docs/operating/rolling-back.md says of an earlier version, with real commands on jobs that a later one left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from headrace import Headrace
from headrace.keys import QueueKeys
from headrace.settings_fleet import encode_version
from headrace.store.versions import Versions
from tests.deploy.parts import DEPLOY, headrace

if TYPE_CHECKING:
    from headrace.server import PrivateServer
    from tests.support.raw import Raw


@pytest.fixture
def environment(server: PrivateServer, prefix: str) -> dict[str, str]:
    return {"REDIS_URL": server.url, "HEADRACE_PREFIX": prefix, "PYTHONPATH": str(DEPLOY / "docker")}


def answer(environment: dict[str, str], *arguments: str) -> Any:
    """Return what a command prints as JSON."""
    done = headrace(*arguments, "--json", environment=environment)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


async def leave(environment: dict[str, str], *arguments: str) -> str:
    """Enqueue a job of the example's task as a version with other arguments would; returns its id."""
    app = Headrace(environment["REDIS_URL"], settings={"prefix": environment["HEADRACE_PREFIX"]})

    @app.task(queue="mail", name="shop.send_mail")
    async def send_mail(*everything: str) -> None: ...

    async with app:
        return (await send_mail.enqueue(*arguments)).id


async def test_a_record_of_a_later_version_waits_untouched_and_the_command_says_what_to_do(
    environment: dict[str, str], raw: Raw, prefix: str
) -> None:
    job = await leave(environment, "ann")
    key = QueueKeys(prefix, "mail")["jobs"]
    record = raw("HGET", key, job)
    raw("HSET", key, job, later := b"\x02" + record[1:])

    done = headrace("worker", "shop:app", "--burst", environment=environment)

    why = headrace("jobs", "why", job, environment=environment).stdout
    shown = answer(environment, "jobs", "show", job)
    assert done.returncode == 0
    assert "Upgrade Headrace in this process" in why
    assert (shown["status"], shown["attempts"], shown["deferrals"]) == ("delayed", 0, 1)
    assert raw("HGET", key, job) == later
    raw("HSET", key, job, record)


async def test_arguments_that_the_earlier_code_does_not_take_fail_and_can_be_put_back(
    environment: dict[str, str],
) -> None:
    job = await leave(environment, "ann", "urgent")

    headrace("worker", "shop:app", "--burst", environment=environment)
    failed = answer(environment, "jobs", "show", job)
    retried = headrace("queues", "retry", "mail", environment=environment)
    back = answer(environment, "jobs", "show", job)

    assert failed["status"] == "failed"
    assert (retried.returncode, back["status"], back["attempts"]) == (0, "waiting", 0)


async def test_settings_of_a_later_version_are_taken_but_for_those_that_are_not_known(
    environment: dict[str, str],
) -> None:
    settings = {"prefix": environment["HEADRACE_PREFIX"]}
    async with Headrace(environment["REDIS_URL"], settings=settings) as app:
        later = encode_version({"HEADRACE_LATER": "1", "QUEUE_CONCURRENCY": "7"}, "ann", "of a later version")
        await Versions(app.store).write(app.control, 0, later)

    done = headrace("worker", "shop:app", "--burst", environment=environment)

    assert '"concurrency": 7' in done.stderr
    assert "settings of a newer version ignored" in done.stderr
