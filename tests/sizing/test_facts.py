"""What the server and the fleet say: also where a user may not ask, and where others have left nonsense."""

from __future__ import annotations

import contextlib
import doctest
import json
from typing import TYPE_CHECKING, Any

import pytest

from headrace import resp
from headrace.histogram import Quantiles
from headrace.keys import budget_key, workers_key
from headrace.pool.figures import LaneStats, PoolStats
from headrace.record import encode_value
from headrace.resp import pack_command
from headrace.sizing import facts
from headrace.sizing.demand import Demand, Member, ServerFacts
from headrace.sizing.facts import ask_server, count_strangers, find_ghosts, measure_borrowed, read_members
from headrace.sizing.sizer import read_window
from headrace.store.budget import Claim
from headrace.store.replies import WorkerFacts
from tests.live import working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headrace import Headrace
    from tests.support.raw import Raw

USER = "sized"


class Scripted:
    """Answer commands by their first words; every other is asked of a real link."""

    def __init__(self, app: Headrace, answers: dict[str, Any]) -> None:
        self.app = app
        self.answers = answers

    async def roundtrip(self, payload: bytes, count: int) -> list[Any]:
        replies = await self.app.control.roundtrip(payload, count)
        for word, answer in self.answers.items():
            if payload.startswith(pack_command(*word.split())):
                replies[0] = answer
        return replies


@contextlib.asynccontextmanager
async def limited(make_app: Callable[..., Headrace], raw: Raw, *rules: str) -> AsyncIterator[Headrace]:
    """Open an app as a user who may not do everything."""
    raw("ACL", "SETUSER", USER, "on", ">word", "~*", "&*", "+@all", *rules)
    try:
        async with make_app() as plain:
            path = (plain.settings.redis_url or "").removeprefix("unix://")
        async with make_app(f"unix://{USER}:word@{path}") as app:
            yield app
    finally:
        raw("ACL", "DELUSER", USER)


@pytest.mark.parametrize("module", [facts, resp])
def test_examples_in_the_docstrings_hold(module: Any) -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


async def test_info_tells_maxclients_and_the_clients_of_now(make_app: Callable[..., Headrace], raw: Raw) -> None:
    async with make_app() as app:
        server, now_ms = await ask_server(app.control)
        seconds = int(raw("TIME")[0])

    assert server.source == "INFO"
    assert server.maxclients == int(raw("CONFIG", "GET", "maxclients")[b"maxclients"])
    assert server.clients is not None
    assert server.clients >= 1
    assert abs(now_ms / 1000 - seconds) <= 2


async def test_config_is_asked_where_info_does_not_tell(make_app: Callable[..., Headrace], raw: Raw) -> None:
    async with make_app() as app:
        old = Scripted(app, {"INFO clients": b"# Clients\r\nconnected_clients:7\r\n"})

        server, _ = await ask_server(old)

    expected = int(raw("CONFIG", "GET", "maxclients")[b"maxclients"])
    assert server == ServerFacts(expected, 7, "CONFIG")


async def test_what_a_user_may_not_ask_is_unknown_and_stops_no_app(make_app: Callable[..., Headrace], raw: Raw) -> None:
    async with limited(make_app, raw, "-info", "-config", "-client|list") as app:
        sizing = await app.sizing()
        ghosts = await find_ghosts(app.control, [Member("elsewhere:1:x", 5, Demand())])

    assert (sizing.server, sizing.verdict, sizing.limits) == (ServerFacts(), "unknown", None)
    assert "does not tell its maxclients" in sizing.advice
    assert ghosts == []


async def test_a_user_who_may_run_no_script_of_the_budget_has_an_app_all_the_same(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw("SET", budget_key(prefix), "no hash")
    async with make_app() as app:
        assert app.pool.stats().maximum == 100
    raw("DEL", budget_key(prefix))

    assert "the fleet's budget cannot be used; it is tried again" in caplog.text


async def test_a_running_app_has_its_places_with_its_demand_and_gives_them_back(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str
) -> None:
    async with make_app(redis_max_connections=33, redis_min_connections=0) as app:
        fields = {name.decode(): value.decode() for name, value in dict(raw("HGETALL", budget_key(prefix))).items()}
        left = raw("PTTL", budget_key(prefix))

    assert fields.pop("*").split()[0] == "33"
    ((name, value),) = fields.items()
    assert name.endswith(f":{app.id}")
    _, places, note = value.split(" ", 2)
    assert int(places) == 33
    assert json.loads(note)["workers"] == 0
    assert 170_000 < left <= 180_000
    assert raw("EXISTS", budget_key(prefix)) == 0


async def test_the_workers_of_an_app_count_from_its_start(make_app: Callable[..., Headrace]) -> None:
    app = make_app()
    async with working(app, concurrency=7):
        during = await app.sizing()
        async with make_app() as other:
            seen = await other.sizing()

    rows = {row.consumer: row.process for row in during.rows}
    assert (rows["blocking"], rows["jobs"], rows["user"]) == (1, 1, 8)
    assert {row.consumer: row.fleet for row in seen.rows}["blocking"] == 1


def test_members_are_those_whose_lease_has_not_run_out() -> None:
    note = facts.encode_demand(Demand(workers=3, slots=9))
    claims = [
        Claim("a:1:x", 2_000, 10, note), Claim("b:1:x", 1_000, 10, note),
        Claim("c:1:x", 2_000, 5, b"\xc1 no note"), Claim("me", 2_000, 7, note),
    ]  # fmt: skip

    found = read_members(claims, 1_500, "me")

    assert [(member.process, member.places, member.demand.workers) for member in found] == [
        ("a:1:x", 10, 3), ("c:1:x", 5, 0),
    ]  # fmt: skip


def test_strangers_are_processes_with_workers_that_are_not_in_the_budget() -> None:
    workers = {
        "w1": WorkerFacts(host="a", pid=1, seen=990.0), "w2": WorkerFacts(host="a", pid=1, seen=990.0),
        "w3": WorkerFacts(host="b", pid=1, seen=990.0), "w4": WorkerFacts(host="c", pid=1, seen=100.0),
        "w5": WorkerFacts(host="me", pid=1, seen=990.0),
    }  # fmt: skip

    assert count_strangers(workers, [Member("b:1:x", 5, Demand())], "me:1:y", 1_000.0) == 1


async def test_a_worker_that_is_only_in_the_registry_is_counted(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str
) -> None:
    now = int(raw("TIME")[0])
    raw("HSET", workers_key(prefix), "old", encode_value(WorkerFacts(host="elsewhere", pid=5, seen=float(now))))

    async with make_app() as app:
        found = await app.sizing()

    raw("DEL", workers_key(prefix))
    assert (found.processes, found.places) == (2, 104)


def stats(**given: Any) -> PoolStats:
    """Figures of a pool with twenty connections."""
    lane = LaneStats(share=12, active=given.pop("used", 5), waiting=given.pop("waits", 0), waiting_highest=3)
    plain = {"minimum": 0, "maximum": 20, "total": 8, "active": 5, "idle": 3, "opening": 0, "waiting": 0}
    return PoolStats(name="p", lanes={"user": lane}, **{**plain, **given})


def test_a_window_is_the_difference_of_two_looks() -> None:
    before = stats(wait=Quantiles(count=100, mean=0.010), timeouts_total=1)
    now = stats(
        wait=Quantiles(count=150, mean=0.020), response=Quantiles(count=9, mean=0.3), timeouts_total=11, waits=4
    )

    found = read_window(before, now, 2.0)

    assert (found.arrivals, found.service, found.in_use, found.waiting) == (20.0, 0.3, 5, 4)
    assert found.wait == pytest.approx(2.0 / 40)
    assert found.load == pytest.approx(6.0)


def test_figures_that_began_anew_count_as_no_wait() -> None:
    before = stats(wait=Quantiles(count=100, mean=0.5), calls_total=100)
    now = stats(wait=Quantiles(count=10, mean=0.1), calls_total=130)

    found = read_window(before, now, 1.0)

    assert (found.arrivals, found.wait) == (30.0, 0.0)


@pytest.mark.parametrize(("total", "used", "full"), [(8, 5, False), (8, 12, True), (20, 5, True)])
def test_a_pool_is_full_when_its_lane_or_all_of_it_is(total: int, used: int, *, full: bool) -> None:
    assert read_window(stats(), stats(total=total, used=used), 1.0).full is full


def test_what_is_borrowed_is_measured_once_anybody_has_borrowed() -> None:
    busy = stats(wait=Quantiles(count=6_000), response=Quantiles(count=6_000, mean=0.04))

    assert measure_borrowed(stats()) is None
    # 100 a second that hold for 40 ms are 4, with head room 8; 3 more had to wait.
    assert measure_borrowed(busy) == 11
