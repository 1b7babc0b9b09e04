"""The links of a cluster on a real one: routing, redirects, one look at the map for all, subscriptions that move."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace.census import Census
from headrace.errors import ConnectionLost, PoolClosed
from headrace.pool.address import Address
from headrace.pool.cluster import Cluster
from headrace.pool.lanes import Lane
from headrace.pool.pool import Pool
from headrace.pool.slots import Place, SlotMap
from headrace.pool.sync_cluster import SyncRoute
from headrace.resp import pack_command
from tests.live import DEADLINE
from tests.support.cluster import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.cluster import Cluster as Nodes

#: A key on each of the three nodes.
KEYS = ("t-link:{one}", "t-link:{two}", "t-link:{three}")


@pytest.fixture
async def reached(cluster: Nodes) -> AsyncIterator[Cluster]:
    """The cluster as an app reaches it; nothing of it is left open."""
    census = Census()
    pool = Pool(Address(port=cluster.nodes[0].port), maximum=30, census=census, client_name="t")
    reached = Cluster(pool, [Place("127.0.0.1", node.port) for node in cluster.nodes], census=census)
    await reached.open(DEADLINE)
    yield reached
    await reached.close()
    await pool.close()
    assert census.entries() == []


async def test_a_batch_over_all_nodes_is_answered_in_its_order(reached: Cluster) -> None:
    link = reached.link(Lane.USER, "user", owner="test")
    commands = [pack_command("SET", key, key) for key in KEYS] + [pack_command("GET", key) for key in KEYS]
    commands += [pack_command("UNLINK", key) for key in KEYS]

    replies = await link.roundtrip(b"".join(commands), len(commands))

    assert replies == [b"OK"] * 3 + [key.encode() for key in KEYS] + [1] * 3
    assert reached.pool.stats().lanes["user"].active == 3


async def test_a_command_finds_its_node_with_a_map_that_is_wrong_everywhere(reached: Cluster) -> None:
    link = reached.link(Lane.USER, "user", owner="test")
    right = reached.slots
    shifted = (*right.primaries[1:], right.primaries[0])
    reached.slots = wrong = SlotMap(right.starts, right.ends, shifted, right.replicas)

    replies = await link.roundtrip(b"".join(pack_command("EXISTS", key) for key in KEYS), 3)

    assert replies == [0, 0, 0]
    await reached.refresh(wrong)
    # A node that was asked a moment ago may not know of every replica.
    assert (reached.slots.starts, reached.slots.ends, reached.slots.primaries) == (
        right.starts,
        right.ends,
        right.primaries,
    )


async def test_many_who_find_the_map_stale_ask_once(reached: Cluster) -> None:
    before = reached.refreshed_total

    await asyncio.gather(*(reached.refresh(reached.slots) for _ in range(100)))

    assert reached.refreshed_total == before + 1


async def test_any_seed_that_answers_will_do(cluster: Nodes) -> None:
    census = Census()
    (nowhere,) = free_ports(1)
    pool = Pool(Address(port=nowhere), maximum=30, census=census, client_name="t")
    reached = Cluster(pool, [Place("127.0.0.1", nowhere), Place("127.0.0.1", cluster.nodes[4].port)], census=census)

    await reached.open(DEADLINE)

    assert len(set(reached.slots.primaries)) == 3
    await reached.close()
    await pool.close()
    assert census.entries() == []


async def test_seeds_that_are_all_away_are_named_in_the_error() -> None:
    census = Census()
    (nowhere,) = free_ports(1)
    pool = Pool(Address(port=nowhere), maximum=30, census=census, client_name="t")
    reached = Cluster(pool, [Place("127.0.0.1", nowhere)], census=census)

    with pytest.raises(ConnectionLost, match=f"no node .* asked were 127.0.0.1:{nowhere}. Check that one of them runs"):
        await reached.open(0.2)

    await reached.close()
    await pool.close()
    assert census.entries() == []


async def test_subscriptions_move_to_another_node_when_theirs_is_lost(reached: Cluster, cluster: Nodes) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    looked = asyncio.Event()
    link = reached.link(
        Lane.CONTROL, "control", owner="test", on_push=lambda _, data: heard.put_nowait(data), on_reopen=looked.set
    )
    await link.subscribe(["t-link:channel"])
    home = link._home
    assert home is not None
    node = next(node for node in cluster.nodes if node.port == home.port)
    # As the loss of the node: it takes no connection of this link any more, while the others go on.
    link._nodes[home].address = Address(port=free_ports(1)[0])

    node("CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.wait_for(looked.wait(), DEADLINE)
    cluster.nodes[5]("PUBLISH", "t-link:channel", "again")

    assert await asyncio.wait_for(heard.get(), DEADLINE) == b"again"
    assert link._home != home


async def test_a_closed_link_says_so(reached: Cluster) -> None:
    link = reached.link(Lane.USER, "user", owner="test")
    await link.roundtrip(pack_command("EXISTS", KEYS[0]), 1)
    await reached.release(link)

    with pytest.raises(PoolClosed, match=r"is closed\. Open the app again"):
        await link.roundtrip(pack_command("EXISTS", KEYS[0]), 1)


def test_a_link_for_synchronous_code_finds_out_that_its_server_is_a_node(cluster: Nodes) -> None:
    route = SyncRoute(Address(port=cluster.nodes[1].port), name="test")
    commands = [pack_command("SET", key, key) for key in KEYS] + [pack_command("UNLINK", key) for key in KEYS]

    replies = route.roundtrip(b"".join(commands), len(commands), timeout=DEADLINE)

    assert replies == [b"OK"] * 3 + [1] * 3
    route.close()
    with pytest.raises(PoolClosed):
        route.roundtrip(pack_command("EXISTS", KEYS[0]), 1)
