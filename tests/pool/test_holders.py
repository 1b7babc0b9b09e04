"""Who holds what, in words: the place in the program, the owner, and the longest holds first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis.asyncio

from headrace.pool.holders import MOST_LISTED, Holder, find_place, name_owner, name_place, tell_holders
from tests.live import until
from tests.support.pools import lending

if TYPE_CHECKING:
    from headrace.server import PrivateServer


def held(seconds: float, owner: str, purpose: str = "", place: str = "") -> Holder:
    return Holder("user", owner, purpose, place, seconds)


def test_the_longest_holders_are_listed_and_the_rest_counted() -> None:
    holders = [held(float(number), f"task-{number}") for number in range(8)]

    text = tell_holders(holders)

    assert text.startswith("longest held 7.0 s by 'task-7', 6.0 s by 'task-6', ")
    assert text.endswith("3.0 s by 'task-3' and 3 more")
    assert text.count(" s by ") == MOST_LISTED
    assert tell_holders([]) == "none is held; they are being opened"


def test_a_holder_is_told_with_what_for_and_where_as_far_as_known() -> None:
    assert (
        str(held(41.23, "mail-3", "reserve", "worker.py:12 run")) == "41.2 s by 'mail-3' (reserve) at worker.py:12 run"
    )
    assert str(held(0.0, "main")) == "0.0 s by 'main'"


def test_the_place_is_the_nearest_line_of_the_program() -> None:
    place = find_place()

    assert name_place(place).startswith("pool/test_holders.py:")
    assert name_place(place).endswith("test_the_place_is_the_nearest_line_of_the_program")
    assert name_place(None) == ""


async def test_an_owner_is_a_task_or_a_text() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.set_name("mail-7")

    assert [name_owner(owner) for owner in (task, "worker", None, "")] == ["mail-7", "worker", "unknown", "unknown"]


async def test_the_place_of_a_client_is_the_line_that_called_it(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=2) as pool:
        client = redis.asyncio.Redis(connection_pool=pool)
        blocked = asyncio.ensure_future(client.blpop(["nothing-is-here"], timeout=5))

        async def taken() -> bool:
            return bool(pool.holders())

        await until(taken, "the client holds a connection")

        (holder,) = pool.holders()

        assert (holder.lane, holder.purpose) == ("user", "")
        assert "redis/" not in holder.place
        blocked.cancel()
        await asyncio.wait({blocked})
        assert pool.holders() == []


async def test_a_pipeline_and_a_subscription_are_holders_too(server: PrivateServer) -> None:
    async with lending(server.url, max_connections=3) as pool:
        client = redis.asyncio.Redis(connection_pool=pool)
        listener = client.pubsub()
        await listener.subscribe("news")
        async with client.pipeline() as pipeline:
            await pipeline.watch("key")

            places = {holder.place.rpartition(" ")[2] for holder in pool.holders()}

            assert places == {"test_a_pipeline_and_a_subscription_are_holders_too"}
            assert len(pool.holders()) == 2
        await listener.aclose()  # type: ignore[no-untyped-call]  # redis-py has no types here
        assert pool.holders() == []


@pytest.mark.parametrize("owner", ["mail-3", ""])
async def test_a_lane_names_the_owner_for_its_client(server: PrivateServer, owner: str) -> None:
    async with lending(server.url, max_connections=1) as pool:
        view = pool.lane("user", owner=owner, purpose="export")
        connection = await view.get_connection()
        task = asyncio.current_task()
        assert task is not None

        (holder,) = pool.holders()

        assert (holder.owner, holder.purpose) == (owner or task.get_name(), "export")
        await view.release(connection)
