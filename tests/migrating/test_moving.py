"""The scripts of the pages that move jobs, on what other systems write: nothing twice, nothing run, nothing lost."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis

from headrace import Headrace
from headrace.server import start_private_server
from tests.docs.examples import File, steps
from tests.tidy.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

Client = Any
ARGUMENTS: Final = {"to": "ann@example.com", "body": "Your order"}
QUEUES: Final = {"celery": "mail", "rq": "mail", "arq": "arq:queue", "bullmq": "mail"}


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def put_celery(client: Client, job_id: str, arguments: Any = ARGUMENTS) -> None:
    """Write what `send_mail.delay(**arguments)` of Celery 5.7 writes."""
    body = json.dumps([[], arguments, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    headers = {"task": "old_shop.send_mail", "id": job_id, "eta": None, "expires": None, "timelimit": [None, None]}
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-type": "application/json",
        "headers": headers,
        "properties": {"body_encoding": "base64"},
    }
    client.lpush("mail", json.dumps(message))


def put_rq(client: Client, job_id: str, arguments: Any = ARGUMENTS) -> None:
    """Write what `queue.enqueue(send_mail, **arguments)` of RQ 3.0 writes."""
    data = pickle.dumps(("old_shop.send_mail", None, (), arguments))
    client.hset(f"rq:job:{job_id}", mapping={"data": zlib.compress(data), "origin": "mail"})
    client.rpush("rq:queue:mail", job_id)


def put_arq(client: Client, job_id: str, arguments: Any = ARGUMENTS) -> None:
    """Write what `enqueue_job("send_mail", **arguments)` of arq 0.28 writes."""
    record = {"t": None, "f": "send_mail", "a": (), "k": arguments, "et": 1}
    client.set(f"arq:job:{job_id}", pickle.dumps(record))
    client.zadd("arq:queue", {job_id: time.time() * 1000})


def put_bullmq(client: Client, job_id: str, arguments: Any = ARGUMENTS) -> None:
    """Write what `queue.add("sendMail", arguments)` of BullMQ 6.7 writes."""
    record = {"name": "sendMail", "data": json.dumps(arguments), "opts": '{"attempts":0}', "priority": "0"}
    client.hset(f"bull:mail:{job_id}", mapping=record)
    client.lpush("bull:mail:wait", job_id)


PUT: Final = {"celery": put_celery, "rq": put_rq, "arq": put_arq, "bullmq": put_bullmq}


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server of the test alone: the scripts have the default prefix."""
    with start_private_server(tmp_path / "server", extra=("--appendonly", "no", "--save", "")) as running:
        yield running


@pytest.fixture
def client(own_server: PrivateServer) -> Iterator[Client]:
    """What the other system uses."""
    with redis.Redis.from_url(own_server.url) as client:
        yield client


def run_script(system: str, folder: Path, url: str) -> list[str]:
    """Run the script of a page beside the app of that page; return the lines that it printed."""
    for step in steps((ROOT / "docs" / "migrating" / f"{system}.md").read_text()):
        if isinstance(step, File) and step.name in {"shop.py", f"move_{system}.py"}:
            (folder / step.name).write_text(step.text)
    done = subprocess.run(
        [sys.executable, f"move_{system}.py", QUEUES[system], "--plain-pickle"], cwd=folder,
        env={**os.environ, "REDIS_URL": url}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def waiting(url: str) -> int:
    """Return the number of jobs that wait."""
    async with Headrace(url) as app:
        stats = await app.queue("mail").stats()
        assert stats.paused
        return stats.waiting


@pytest.mark.slow
@pytest.mark.parametrize("system", sorted(PUT))
async def test_nothing_is_enqueued_twice_and_what_does_not_fit_stays(
    system: str, own_server: PrivateServer, client: Client, tmp_path: Path
) -> None:
    PUT[system](client, "wrong", {"to": "ann@example.com", "text": "no such parameter"})
    before = {key: client.dump(key) for key in client.scan_iter()}
    PUT[system](client, "one")
    first = run_script(system, tmp_path, own_server.url)
    # As if the script had ended after it had enqueued, and before it removed.
    PUT[system](client, "one")
    PUT[system](client, "two")

    second = run_script(system, tmp_path, own_server.url)

    assert [first[0], second[0]] == ["1 moved", "2 moved"]
    assert first[1:] == second[1:]
    assert first[1].startswith("1 stays: task 'shop.send_mail'")
    assert await waiting(own_server.url) == 2
    assert {key: client.dump(key) for key in client.scan_iter() if not key.startswith(b"headrace:")} == before


@pytest.mark.parametrize("system", ["arq", "rq"])
async def test_no_code_of_a_pickle_is_run(
    system: str, own_server: PrivateServer, client: Client, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    PUT[system](client, "one", {"to": Harmful(str(made)), "body": ""})

    printed = run_script(system, tmp_path, own_server.url)

    assert not made.exists()
    assert printed == ["1 stays: its pickle holds posix.mkdir"]
    assert await waiting(own_server.url) == 0


async def test_a_job_that_a_worker_of_arq_runs_stays(own_server: PrivateServer, client: Client, tmp_path: Path) -> None:
    put_arq(client, "one")
    client.set("arq:in-progress:one", b"1")

    printed = run_script("arq", tmp_path, own_server.url)

    assert printed == ["1 stays: a worker of arq runs it"]
    assert client.get("arq:in-progress:one") == b"1"
    assert await waiting(own_server.url) == 0
