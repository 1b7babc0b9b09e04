"""What only a cluster has: slots, redirects, a pool with room for each node, dead letters in another slot."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from headrace.errors import CommandRefused, JobNotFound, SettingError
from headrace.keys import QueueKeys
from headrace.store.box import Box, BoxKeys, slot_of
from tests.live import DEADLINE, exists, opened, until, work_off, working

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from headrace.worker.worker import Worker
    from tests.support.cluster import Cluster, ClusterRaw

#: A queue on each of three nodes that share the slots evenly.
QUEUES = ("one", "two", "three")


async def run_everywhere(app: Headrace) -> list[str]:
    """Run one job on each node, and return what they said."""

    @app.task(queue="one", keep_result=60.0)
    async def work() -> str:
        return "done"

    jobs = [await work.using(queue=queue).enqueue() for queue in QUEUES]
    await work_off(app, QUEUES)
    return [await job.result(timeout=DEADLINE) for job in jobs]


async def test_one_worker_serves_queues_of_all_nodes(app: Headrace, cluster: Cluster) -> None:
    @app.task(queue="one", keep_result=60.0)
    async def double(number: int) -> int:
        return 2 * number

    nodes = {cluster.primary_of(slot_of(queue)).port for queue in QUEUES}
    async with working(app, QUEUES, concurrency=20):
        jobs = [await double.using(queue=queue).enqueue(at) for queue in QUEUES for at in range(50)]
        results = [await job.result(timeout=DEADLINE) for job in jobs]

    assert len(nodes) == 3
    assert results == 3 * [2 * at for at in range(50)]


async def test_an_app_whose_url_names_one_node_finds_the_others(
    make_app: Callable[..., Headrace], cluster: Cluster
) -> None:
    for node in cluster.nodes:
        async with opened(make_app(node.url)) as app:
            assert await run_everywhere(app) == ["done"] * 3


async def test_an_idle_worker_is_woken_on_every_node(app: Headrace) -> None:
    ran: list[str] = []
    happened = asyncio.Event()

    @app.task(queue="one")
    async def work(queue: str) -> None:
        ran.append(queue)
        happened.set()

    async with working(app, QUEUES) as worker:
        for queue in QUEUES:
            await blocked_on_all(worker)
            happened.clear()
            await work.using(queue=queue).enqueue(queue)
            # Far less than the survey and the blocking call take, which would find the job too.
            await asyncio.wait_for(happened.wait(), 3.0)
        lanes = app.pool.stats().lanes

    assert ran == list(QUEUES)
    assert lanes["blocking"].active == len(QUEUES)


async def blocked_on_all(worker: Worker) -> None:
    parts = worker._parts
    assert parts is not None
    wanted = {served.calls.wake for served in parts.queues.values()}

    async def probe() -> bool:
        return parts.waking.blocked == wanted

    await until(probe, "the worker blocks on every queue")


async def test_a_job_dies_into_another_slot_and_comes_back_in_one_step_each(app: Headrace, raw: ClusterRaw) -> None:
    healthy = False

    @app.task(queue="one", attempts=1, dead_letter="dead", keep_result=60.0)
    async def work(number: int) -> int:
        if not healthy:
            raise ValueError(number)
        return number

    assert slot_of("one") != slot_of("dead")
    jobs = [await work.enqueue(number) for number in range(3)]
    await work_off(app, ["one"])
    box = BoxKeys(app.settings.prefix, Box("dead", "one"))
    lying = (
        raw("ZCARD", box["dead"]),
        raw("HLEN", box["jobs"]),
        raw("HLEN", QueueKeys(app.settings.prefix, "one")["jobs"]),
    )
    statuses = [str((await job.refresh()).status) for job in jobs]
    healthy = True
    retried = await app.queue("dead").retry_failed()
    await work_off(app, ["one"])

    assert lying == (3, 3, 0)
    assert statuses == ["failed"] * 3
    assert retried == 3
    assert [await job.result(timeout=DEADLINE) for job in jobs] == [0, 1, 2]
    assert raw("EXISTS", box["dead"]) == raw("EXISTS", box["jobs"]) == 0


async def test_a_dead_letter_queue_shows_what_it_took_from_queues_of_all_nodes(app: Headrace) -> None:
    @app.task(queue="one", attempts=1, dead_letter="dead")
    async def work() -> None:
        raise ValueError

    dead = app.queue("dead")
    for queue in QUEUES:
        for _ in range(4):
            await work.using(queue=queue).enqueue()
    await work_off(app, QUEUES)
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await dead.jobs("failed", cursor=cursor, limit=5)
        ids += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    handle = dead.job(ids[0])
    await handle.refresh()

    assert (await dead.stats()).failed == len(ids) == len(set(ids)) == 12
    assert handle.details is not None
    assert handle.details.origin in QUEUES
    assert not await handle.cancel()
    assert await dead.clear("failed") == 12
    assert not await exists(handle)


async def test_synchronous_code_enqueues_on_every_node(make_app: Callable[..., Headrace], cluster: Cluster) -> None:
    for url in (cluster.url, cluster.nodes[2].url):
        app = make_app(url)

        @app.task(queue="one", keep_result=60.0)
        async def work(number: int) -> int:
            return number

        jobs = [await asyncio.to_thread(work.using(queue=queue).enqueue_sync, 7) for queue in QUEUES]
        app.close_sync()

        async with opened(app):
            await work_off(app, QUEUES)
            assert [await app.queue(job.queue).job(job.id).result(timeout=DEADLINE) for job in jobs] == [7, 7, 7]
            assert {queue.name for queue in await app.queues()} >= set(QUEUES)


async def test_results_reach_an_app_whose_subscriptions_had_to_leave_their_node(
    app: Headrace, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(queue="one", keep_result=60.0)
    async def work() -> str:
        return "done"

    job = await work.using(delay=0.5).enqueue()
    waiting = asyncio.create_task(job.result(timeout=DEADLINE))
    async with working(app, ["one"]):
        link = app.control
        home = link._home  # type: ignore[attr-defined]  # a cluster has one
        with caplog.at_level(logging.ERROR):
            link._leave_home(home)  # type: ignore[attr-defined]  # as the loss of the node would
            await link.subscribe([])
        result = await waiting

    assert result == "done"
    assert link._home != home  # type: ignore[attr-defined]  # as above


async def test_the_user_and_password_of_the_url_are_those_of_every_node(
    make_app: Callable[..., Headrace], cluster: Cluster
) -> None:
    for node in cluster.nodes:
        node("ACL", "SETUSER", "t-app", "on", ">s3cret", "~*", "&*", "+@all")
    url = cluster.url.replace("://", "://t-app:s3cret@")
    async with opened(make_app(url)) as app:
        results = await run_everywhere(app)
    with pytest.raises(CommandRefused, match="WRONGPASS") as refused:
        async with make_app(url.replace("s3cret", "other")):
            pass
    for node in cluster.nodes:
        node("ACL", "DELUSER", "t-app")

    assert results == ["done"] * 3
    assert "other" not in str(refused.value)


async def test_a_pool_too_small_for_the_nodes_is_refused_with_the_number_it_needs(
    make_app: Callable[..., Headrace],
) -> None:
    with pytest.raises(SettingError, match="REDIS_MAX_CONNECTIONS=16: a cluster of 3 primaries needs at least 17"):
        async with make_app(redis_max_connections=16, redis_min_connections=1):
            pass


async def test_an_app_on_the_smallest_pool_runs_a_worker(make_app: Callable[..., Headrace]) -> None:
    async with opened(make_app(redis_max_connections=17, redis_min_connections=1)) as app:
        assert await run_everywhere(app) == ["done"] * 3
        assert app.pool.stats().total <= 17


async def test_a_job_that_is_in_no_slot_is_missing(app: Headrace) -> None:
    with pytest.raises(JobNotFound):
        await app.queue("one").job("nowhere").refresh()
