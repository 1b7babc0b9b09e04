"""Each safety check on a real server that is set or harmed on purpose, and on facts that are not shown."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import UsageError
from headrace.health import inquiry
from headrace.health.checks import QUESTIONS, Seen, judge, parse_answers, run_checks
from headrace.health.facts import Facts, explain, read_states
from headrace.health.verdict import CheckStatus, Health, Status
from headrace.pool.connection import ServerReplyError
from headrace.resp import pack_command
from headrace.server import start_private_server
from tests.live import fresh_app, opened, until
from tests.support.raw import Raw
from tests.support.sick import BUSY, send, timed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.server import PrivateServer

OK, WARN, BAD, UNKNOWN = CheckStatus.OK, CheckStatus.WARN, CheckStatus.BAD, CheckStatus.UNKNOWN


@pytest.fixture
def safe_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server as it should be: with its append-only file."""
    with start_private_server(tmp_path / "safe", port=0) as running:
        yield running


async def look(server: PrivateServer) -> Health:
    """Ask a fresh app, which has no answers from before."""
    async with opened(fresh_app(server.url)) as app:
        return await timed(app)


def found(health: Health, name: str) -> tuple[CheckStatus, str]:
    check = health.check(name)
    assert check is not None
    assert check.meaning
    assert check.remedy
    assert check.threshold
    return check.status, check.measured


async def test_a_server_as_it_should_be_passes_every_check(safe_server: PrivateServer) -> None:
    health = await look(safe_server)

    assert {check.status for check in health.checks} == {OK}
    assert (health.status, health.reasons, health.remedies) == (Status.HEALTHY, (), ())


async def test_settings_of_the_server_that_lose_jobs_degrade_the_verdict(safe_server: PrivateServer) -> None:
    for name, value in [("maxmemory", "100mb"), ("maxmemory-policy", "volatile-lru"), ("appendonly", "no")]:
        send(safe_server.url, "CONFIG", "SET", name, value)
    send(safe_server.url, "CONFIG", "SET", "save", "")

    health = await look(safe_server)

    assert found(health, "eviction policy") == (BAD, "volatile-lru, maxmemory 100.0 MB, 0 keys evicted since its start")
    assert found(health, "persistence") == (BAD, "off: neither append-only file nor snapshots")
    assert (health.status, health.redis) == (Status.DEGRADED, Status.HEALTHY)
    assert len(health.reasons) == len(health.remedies) == 2


async def test_snapshots_alone_are_a_warning_which_changes_no_verdict(safe_server: PrivateServer) -> None:
    send(safe_server.url, "CONFIG", "SET", "appendonly", "no")
    send(safe_server.url, "CONFIG", "SET", "save", "3600 1")

    health = await look(safe_server)

    status, measured = found(health, "persistence")
    assert (status, health.status) == (WARN, Status.HEALTHY)
    assert measured.startswith("snapshots only (save 3600 1), last snapshot or start ")


async def test_memory_and_clients_that_run_out_are_seen_before_they_have(safe_server: PrivateServer) -> None:
    with Raw(safe_server.url) as raw:
        used = next(line for line in raw("INFO", "memory").split() if line.startswith(b"used_memory:"))
    async with opened(fresh_app(safe_server.url)) as app:
        send(safe_server.url, "CONFIG", "SET", "maxmemory", str(round(int(used.split(b":")[1]) / 0.85)))
        send(safe_server.url, "CONFIG", "SET", "maxclients", "3")
        with Raw(safe_server.url) as one, Raw(safe_server.url) as other:
            for each in (one, other):
                each.link.roundtrip(pack_command("PING"), 1)
            health = await timed(app)

    memory, measured = found(health, "memory")
    assert memory in {WARN, BAD}
    assert measured.endswith("maxmemory")
    clients, measured = found(health, "clients")
    assert clients in {WARN, BAD}
    assert "of 3 connections" in measured


async def test_a_slow_command_is_named_without_its_arguments(safe_server: PrivateServer) -> None:
    count, took = 10_000_000, 0.0
    while took < 0.2:
        began = time.monotonic()
        send(safe_server.url, "EVAL", BUSY, "0", str(count))
        took, count = time.monotonic() - began, count * 2

    health = await look(safe_server)

    status, measured = found(health, "slow log")
    assert status is WARN
    assert measured.endswith("(EVAL)")
    assert "sum" not in str(health.to_dict())


async def test_replicas_are_counted_with_their_lag(safe_server: PrivateServer, tmp_path: Path) -> None:
    with (
        start_private_server(tmp_path / "replica", extra=("--appendonly", "no")) as replica,
        Raw(safe_server.url) as raw,
    ):
        send(safe_server.url, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
        send(replica.url, "REPLICAOF", "127.0.0.1", str(safe_server.port))

        async def follows() -> bool:
            return b"state=online" in raw("INFO", "replication")

        await until(follows, "the replica is online")
        health = await look(safe_server)
        send(replica.url, "REPLICAOF", "NO", "ONE")

    status, measured = found(health, "replication")
    assert status is OK
    assert measured.startswith("1 replicas, ")


async def test_the_answers_are_used_for_their_time_and_no_longer(
    safe_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(fresh_app(safe_server.url)) as app:
        first = await timed(app)
        with Raw(safe_server.url) as raw:
            asked = raw("INFO", "commandstats").count(b"cmdstat_slowlog|get")
            calls = await count_calls(raw)
            second = await timed(app)
            same = await count_calls(raw)
            monkeypatch.setattr(inquiry, "FRESH", 0.0)
            third = await timed(app)
            more = await count_calls(raw)

    assert asked == 1
    assert (calls, same, more) == (1, 1, 2)
    assert first.checks_age is not None
    assert second.checks_age is not None
    assert third.checks_age is not None
    assert second.checks_age > first.checks_age > third.checks_age - 1


async def count_calls(raw: Raw) -> int:
    (line,) = [line for line in raw("INFO", "commandstats").split(b"\r\n") if line.startswith(b"cmdstat_slowlog|get:")]
    return int(line.split(b"calls=")[1].split(b",")[0])


async def test_health_writes_nothing(safe_server: PrivateServer) -> None:
    async with opened(fresh_app(safe_server.url)) as app:
        with Raw(safe_server.url) as raw:
            await timed(app)
            before = raw("INFO", "persistence"), raw("DBSIZE")
            await timed(app)
            after = raw("INFO", "persistence"), raw("DBSIZE")

    changes = [[line for line in info.split() if b"rdb_changes" in line] for info, _ in (before, after)]
    assert changes[0] == changes[1]
    assert before[1] == after[1]


# Pure


def test_what_is_not_shown_is_unknown_and_degrades_nothing() -> None:
    refused: list[Any] = [ServerReplyError("NOPERM no")] * len(QUESTIONS)

    save, fsync, slow = parse_answers(refused)
    checks = run_checks(Seen(Facts({}), save, fsync, slow))

    assert {check.status for check in checks} == {UNKNOWN}
    assert judge(checks) == []


@pytest.mark.parametrize(
    ("name", "facts", "status"),
    [
        ("clock skew", {}, UNKNOWN),
        ("replication", {"role": "slave", "master_link_status": "down"}, BAD),
        ("replication", {"role": "master", "slave0": "ip=x,port=1,state=online,offset=0,lag=11"}, WARN),
        ("replication", {"role": "master", "slave0": "ip=x,port=1,state=wait_bgsave,offset=0,lag=0"}, WARN),
        ("persistence", {"aof_enabled": "1", "aof_last_write_status": "err"}, BAD),
        ("persistence", {"aof_enabled": "0", "rdb_last_bgsave_status": "err"}, BAD),
        ("eviction policy", {"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, WARN),
        ("eviction policy", {"maxmemory_policy": "allkeys-lru", "maxmemory": "0", "evicted_keys": "3"}, BAD),
        ("memory", {"used_memory": "95", "maxmemory": "100"}, BAD),
        ("memory", {"used_memory": "95", "mem_not_counted_for_evict": "50", "maxmemory": "100"}, OK),
        ("memory", {"used_memory": "95", "maxmemory": "0", "total_system_memory": "100"}, WARN),
        ("clients", {"connected_clients": "85", "maxclients": "100"}, WARN),
        ("clients", {"connected_clients": "97", "maxclients": "100"}, BAD),
        ("clients", {"connected_clients": "97"}, UNKNOWN),
        ("version", {"redis_version": "6.0.16"}, BAD),
        ("blocked clients", {"blocked_clients": "60", "maxclients": "100"}, WARN),
    ],
)
def test_facts_give_a_status(name: str, facts: dict[str, str], status: CheckStatus) -> None:
    (check,) = [check for check in run_checks(Seen(Facts(facts))) if check.name == name]

    assert check.status is status


@pytest.mark.parametrize(
    ("skew", "error", "status"), [(0.9, 0.0, OK), (-3.0, 0.1, WARN), (3.0, 2.5, OK), (-61.0, 0.5, BAD)]
)
def test_a_skew_within_its_error_is_none(skew: float, error: float, status: CheckStatus) -> None:
    (check,) = [check for check in run_checks(Seen(Facts({}), skew=skew, skew_error=error)) if "skew" in check.name]

    assert check.status is status


def test_an_old_slow_command_is_forgotten() -> None:
    now = time.time()

    for at, status in ((now, WARN), (now - 3_600, OK)):
        (check,) = [check for check in run_checks(Seen(Facts({}), slow=((at, 0.5, "KEYS"),))) if "slow" in check.name]
        assert check.status is status


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"loading": "1", "loading_eta_seconds": "12"}, "loading its data for about 12 s more"),
        ({"master_failover_state": "failover-in-progress"}, "failing over"),
        ({"role": "slave", "master_host": "db", "master_port": "1", "master_link_status": "up"}, "replica of db:1"),
        ({"paused_actions": "write", "paused_timeout_milliseconds": "1500"}, "paused its clients (write"),
        ({"used_memory": "10", "maxmemory": "10", "maxmemory_policy": "noeviction"}, "out of memory"),
        ({"aof_last_write_status": "err"}, "append-only file and refuses writes"),
        ({"rdb_last_bgsave_status": "err"}, "last snapshot failed"),
        ({"connected_clients": "9", "maxclients": "9"}, "at maxclients: 9 connections of 9"),
    ],
)
def test_a_state_in_which_a_queue_cannot_work_is_found(facts: dict[str, str], reason: str) -> None:
    (finding,) = read_states(Facts(facts), None)

    assert reason in finding.reason
    assert finding.remedy
    assert finding.sure


def test_connections_refused_since_the_last_look_are_found() -> None:
    before, after = (Facts({"rejected_connections": count}) for count in ("3", "5"))

    (finding,) = read_states(after, before)

    assert "2 refused since the last look" in finding.reason
    assert read_states(after, after) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("LOADING the dataset", "is loading"),
        ("ERR max number of clients reached", "at maxclients"),
        ("MASTERDOWN Link with MASTER is down", "lost its primary"),
        ("BUSY running a script", "script that does not end"),
        ("NOAUTH Authentication required", "wants a login"),
        ("Connection refused", "cannot be reached: Connection refused"),
    ],
)
def test_what_comes_in_place_of_a_reply_is_explained(text: str, reason: str) -> None:
    assert reason in explain(text).reason


async def test_health_of_an_app_that_is_not_open_is_a_wrong_call(safe_server: PrivateServer) -> None:
    with pytest.raises(UsageError, match="not open"):
        await fresh_app(safe_server.url).health()


async def test_calls_at_the_same_time_share_one_probe(safe_server: PrivateServer) -> None:
    async with opened(fresh_app(safe_server.url)) as app:
        await timed(app)
        with Raw(safe_server.url) as raw:
            before = raw("INFO", "stats")
            verdicts = await asyncio.gather(*(app.health() for _ in range(50)))
            after = raw("INFO", "stats")

    commands = [
        int(line.split(b":")[1])
        for info in (before, after)
        for line in info.split()
        if line.startswith(b"total_commands_processed")
    ]
    assert {health.status for health in verdicts} == {Status.HEALTHY}
    assert commands[1] - commands[0] < 10
