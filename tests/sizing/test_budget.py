"""The budget of the fleet on a real server: never passed, kept under a lease, and free again when a process is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace.errors import CommandRefused
from headrace.keys import budget_key
from headrace.store.budget import Budget, Granted
from headrace.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from tests.support.raw import Raw


async def ask(
    app: Headrace,
    name: str,
    wanted: int,
    *,
    least: int = 4,
    limit: int | None = 100,
    lease: float = 60.0,
    first: bool = False,
) -> Granted:
    """Ask for places by another name than that of the app."""
    budget = Budget(Store(f"{app.settings.prefix}-other", where="here"))
    return await budget.ask(app.control, name, least=least, wanted=wanted, limit=limit, lease=lease, first=first)


@pytest.fixture
def key(prefix: str) -> str:
    return budget_key(f"{prefix}-other")


async def test_a_process_gets_what_is_left(make_app: Callable[..., Headrace], key: str, raw: Raw) -> None:
    async with make_app() as app:
        got = [await ask(app, name, 45) for name in ("a", "b", "c")]
        again = await ask(app, "a", 45)

    assert [(each.places, each.others_places, each.others) for each in got] == [(45, 0, 0), (45, 45, 1), (10, 90, 2)]
    assert (again.places, again.others_places, again.others) == (45, 55, 2)
    raw("DEL", key)


async def test_who_comes_first_takes_nothing_when_its_least_is_not_left(
    make_app: Callable[..., Headrace], key: str, raw: Raw
) -> None:
    async with make_app() as app:
        await ask(app, "a", 97)
        refused = await ask(app, "b", 20, first=True)
        there = await ask(app, "b", 20)

    assert (refused.places, refused.others_places, refused.others) == (-1, 97, 1)
    assert there.places == 4
    raw("DEL", key)


async def test_what_is_given_back_is_there_for_others(make_app: Callable[..., Headrace], key: str, raw: Raw) -> None:
    async with make_app() as app:
        await ask(app, "a", 80)
        less = await ask(app, "a", 30)
        other = await ask(app, "b", 100)
        last = [(await ask(app, name, 0, least=0)).places for name in ("a", "b")]

    assert (less.places, other.places, last) == (30, 70, [0, 0])
    assert raw("EXISTS", key) == 0


async def test_the_places_of_a_process_that_is_gone_come_free_with_its_lease(
    make_app: Callable[..., Headrace], key: str, raw: Raw
) -> None:
    async with make_app() as app:
        await ask(app, "gone", 90, lease=1.0)
        before = await ask(app, "b", 90)
        await asyncio.sleep(1.05)
        after = await ask(app, "b", 90)

    assert (before.places, after.places, after.others) == (10, 90, 0)
    raw("DEL", key)
    # Red when: budget.lua does not look for leases that ran out.


async def test_the_key_goes_when_all_processes_are_gone(make_app: Callable[..., Headrace], key: str, raw: Raw) -> None:
    async with make_app() as app:
        await ask(app, "long", 5, lease=100.0)
        await ask(app, "short", 5, lease=1.0)
        left = raw("PTTL", key)

    assert 90_000 < left <= 100_000
    raw("DEL", key)


async def test_without_a_limit_everybody_gets_what_it_wants(
    make_app: Callable[..., Headrace], key: str, raw: Raw
) -> None:
    async with make_app() as app:
        got = [(await ask(app, name, 10_000, limit=None)).places for name in "abc"]

    assert got == [10_000] * 3
    raw("DEL", key)


async def test_a_sum_that_something_else_has_broken_is_added_up_again(
    make_app: Callable[..., Headrace], key: str, raw: Raw
) -> None:
    async with make_app() as app:
        await ask(app, "a", 60)
        raw("HSET", key, "*", "nonsense")
        raw("HSET", key, "junk", "nonsense")
        got = await ask(app, "b", 60)

    assert (got.places, got.others_places, got.others) == (40, 60, 1)
    raw("DEL", key)


async def test_a_key_of_another_type_is_refused_by_name(make_app: Callable[..., Headrace], key: str, raw: Raw) -> None:
    raw("SET", key, "no hash")

    async with make_app() as app:
        with pytest.raises(CommandRefused, match="refused budget"):
            await ask(app, "a", 5)
    raw("DEL", key)


async def test_claims_name_every_process(make_app: Callable[..., Headrace], key: str, raw: Raw) -> None:
    async with make_app() as app:
        await ask(app, "host:1:a", 7)
        await ask(app, "host:2:b", 9)
        claims = await Budget(Store(f"{app.settings.prefix}-other", where="here")).claims(app.control)

    assert [(claim.process, claim.places, claim.note) for claim in claims] == [
        ("host:1:a", 7, b""),
        ("host:2:b", 9, b""),
    ]
    raw("DEL", key)
