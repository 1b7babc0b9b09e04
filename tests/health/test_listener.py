"""The listener answers real HTTP requests, and bad, slow, huge and many ones do it no harm."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.census import Census
from headrace.errors import SettingError
from headrace.health import listener as module
from headrace.health.answers import PATHS, Answer, Report, answer_many, answer_one, report_worker
from headrace.health.listener import CONNECTIONS, Listener
from headrace.health.verdict import Health, Status, WorkerState
from tests.live import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEADLINE = 10.0


class Probed:
    """A listener with answers that a test may change."""

    def __init__(self) -> None:
        self.census = Census()
        self.asked: list[str] = []
        self.code = 200
        self.wait = 0.0
        self.text = ""
        self.listener = Listener("127.0.0.1", 0, self.answer, self.census)

    async def answer(self, path: str) -> Answer:
        self.asked.append(path)
        await asyncio.sleep(self.wait)
        return Answer(self.code, {"path": path}, self.text, "text/plain" if self.text else "application/json")

    async def serves(self, count: int) -> bool:
        """Tell whether so many requests are under way."""
        return sum(1 for row in self.census.entries() if row.name == "health request") == count

    async def raw(self, data: bytes) -> bytes:
        """Send bytes and return everything that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        writer.write(data)
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return answer

    async def request(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        """Send a request by the standard library's client; returns status, header fields and body."""

        def work() -> tuple[int, dict[str, str], bytes]:
            client = http.client.HTTPConnection("127.0.0.1", self.listener.port, timeout=DEADLINE)
            with contextlib.closing(client):
                client.request(method, path)
                response = client.getresponse()
                return response.status, dict(response.getheaders()), response.read()

        return await asyncio.to_thread(work)


@pytest.fixture
async def probed() -> AsyncIterator[Probed]:
    probed = Probed()
    await probed.listener.open()
    yield probed
    await probed.listener.close()
    assert probed.census.entries() == []


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/healthz?verbose=1"])
async def test_a_get_is_answered_in_json(probed: Probed, path: str) -> None:
    status, fields, body = await probed.request("GET", path)

    assert (status, json.loads(body)) == (200, {"path": path.partition("?")[0]})
    assert fields["Content-Type"] == "application/json"
    assert int(fields["Content-Length"]) == len(body)
    assert fields["Cache-Control"] == "no-store"


async def test_a_head_is_answered_without_a_body(probed: Probed) -> None:
    probed.code = 503

    status, fields, body = await probed.request("HEAD", "/readyz")

    assert (status, body) == (503, b"")
    assert int(fields["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/livez", 405), ("DELETE", "/readyz", 405), ("GET", "/", 404), ("GET", "/livez/x", 404)],
)
async def test_other_methods_and_paths_are_refused(probed: Probed, method: str, path: str, status: int) -> None:
    found, fields, body = await probed.request(method, path)

    assert found == status
    assert "error" in json.loads(body)
    assert fields.get("Allow") == ("GET, HEAD" if status == 405 else None)
    assert probed.asked == []


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET  /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000,
    ],
)
async def test_what_is_no_request_is_refused(probed: Probed, data: bytes) -> None:
    answer = await probed.raw(data)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert probed.asked == []


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_are_refused(data: bytes) -> None:
    for head in (data, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + data):
        found: tuple[str, str] | None = None
        with contextlib.suppress(module.Refusal):
            found = module.parse_request(head + b"\r\n\r\n")

        assert found is None or (found[0] in {"GET", "HEAD"} and found[1] in PATHS)


async def test_a_request_of_http_1_0_needs_no_host(probed: Probed) -> None:
    assert (await probed.raw(b"GET /livez HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_request_that_does_not_end_is_given_up(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT", 0.1)

    assert (await probed.raw(b"GET /livez HTTP/1.1\r\nHo")).startswith(b"HTTP/1.1 408 ")


async def test_an_answer_that_does_not_come_is_given_up(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.1)
    probed.wait = 60.0

    assert (await probed.raw(b"GET /livez HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 503 ")


async def test_an_answer_of_text_is_sent_as_it_is(probed: Probed) -> None:
    probed.text = "# figures\nx 1.0\n"

    status, fields, body = await probed.request("GET", "/metrics")

    assert (status, fields["Content-Type"], body) == (200, "text/plain", probed.text.encode())


async def test_who_does_not_read_a_long_answer_is_let_go(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.1)
    # More than the system takes for the other side.
    probed.text = "x" * 64_000_000

    with socket.create_connection(("127.0.0.1", probed.listener.port), DEADLINE) as slow:
        slow.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        await until(lambda: probed.serves(1), "it is answered")
        await until(lambda: probed.serves(0), "it is let go")


async def test_more_connections_than_the_bound_are_closed_and_the_listener_goes_on(probed: Probed) -> None:
    idle = [socket.create_connection(("127.0.0.1", probed.listener.port), DEADLINE) for _ in range(CONNECTIONS)]
    await until(lambda: probed.serves(CONNECTIONS), "all of them are taken")

    with contextlib.suppress(ConnectionError):
        assert await probed.raw(b"GET /livez HTTP/1.0\r\n\r\n") == b""
    for each in idle:
        each.close()
    await until(lambda: probed.serves(0), "all of them are let go")

    assert (await probed.raw(b"GET /livez HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert probed.asked == ["/livez"]


async def test_a_connection_that_is_handed_over_after_the_close_is_dropped(probed: Probed) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", probed.listener.port)
    await until(lambda: probed.serves(1), "the connection is there")
    await probed.listener.close()

    # The loop hands over a turn later what it accepted last.
    probed.listener._connected(reader, writer)

    assert probed.census.entries() == []
    assert writer.transport.is_closing()


async def test_a_port_in_use_is_refused_with_its_name(probed: Probed) -> None:
    other = Listener("127.0.0.1", probed.listener.port, probed.answer, Census())

    with pytest.raises(SettingError, match=rf"HEADRACE_HEALTH_PORT={probed.listener.port}: cannot listen"):
        await other.open()


# Answers

READY = Report(ready=True, health={"status": "healthy"}, pid=7)
PAUSED = Report(ready=False, reasons=("paused",), health={"status": "degraded"}, pid=8)


def test_a_worker_without_a_verdict_lives_and_is_not_ready() -> None:
    report = report_worker(None, "w", 7)

    assert [answer_one(path, report).code for path in ("/livez", "/readyz", "/healthz")] == [200, 503, 503]
    assert answer_one("/healthz", report).body["reasons"] == ["the worker starts"]


@pytest.mark.parametrize(
    ("status", "ready", "codes"),
    [("healthy", True, [200, 200, 200]), ("degraded", False, [200, 503, 200]), ("unhealthy", False, [200, 503, 503])],
)
def test_the_codes_of_one_worker(status: str, codes: list[int], *, ready: bool) -> None:
    state = WorkerState("w", ready, () if ready else ("why",), ("mail",), 0, 4)

    report = report_worker(Health(status=Status(status), pool={}, workers=(state,)), "w", 7)

    assert [answer_one(path, report).code for path in ("/livez", "/readyz", "/healthz")] == codes


@pytest.mark.parametrize(
    ("reports", "restarting", "codes"),
    [
        ([READY, READY], 0, [200, 200, 200]),
        ([READY, PAUSED], 0, [200, 503, 200]),
        ([READY, None], 0, [200, 503, 503]),
        ([None, None], 0, [503, 503, 503]),
        ([READY], 1, [200, 503, 200]),
        ([], 2, [200, 503, 503]),
    ],
)
def test_the_codes_of_several_processes(reports: list[Report | None], restarting: int, codes: list[int]) -> None:
    found = [answer_many(path, reports, restarting=restarting).code for path in ("/livez", "/readyz", "/healthz")]

    assert found == codes
