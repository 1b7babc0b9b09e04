"""Deaf links of every server are dropped, and none is looked for once the pool closes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from headrace.census import Census
from headrace.pool import deaf
from headrace.pool.address import parse_address
from headrace.pool.deaf import DeafWatch
from headrace.pool.link import Lane, Link
from headrace.resp import pack_command
from tests.live import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headrace.server import PrivateServer

PING = pack_command("PING")


@pytest.fixture
def census() -> Census:
    return Census()


@pytest.fixture
async def links(server: PrivateServer, census: Census) -> AsyncIterator[list[Link]]:
    """Two open links to each of two addresses."""
    here = parse_address(server.url)
    # The same server twice: a pool tells the nodes of a cluster apart by their addresses.
    there = dataclasses.replace(here, seeds=(("127.0.0.1", 1),))
    made = [
        Link(address, Lane.USER, name=f"link{number}", census=census, owner="test")
        for address in (here, there)
        for number in range(2)
    ]
    for link in made:
        await link.roundtrip(PING, 1)
    yield made
    for link in made:
        await link.close()
    assert census.entries() == []


async def test_links_of_each_server_are_looked_at_when_two_answer_anew_together(
    links: list[Link], census: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaf, "GRACE", 0.05)
    watch = DeafWatch(links, census)

    for silent in (links[0], links[2]):
        watch.note(silent)()

    async def dropped() -> bool:
        return not links[1].is_open and not links[3].is_open

    await until(dropped, "the others of both are dropped")
    assert links[0].is_open
    assert links[2].is_open
    await watch.close()


async def test_a_link_that_is_answered_anew_while_the_pool_closes_leaves_nothing(
    links: list[Link], census: Census
) -> None:
    watch = DeafWatch(links, census)
    before = len(census.entries())
    answered = watch.note(links[0])

    await watch.close()
    answered()

    assert len(census.entries()) == before
    assert links[1].is_open
