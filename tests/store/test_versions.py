"""Versions of the fleet's settings: numbered without a gap, never changed, bounded, and lost to no other writer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace.errors import OptionError, SettingError, SettingsConflict
from headrace.settings_fleet import NO_VERSION, VERSIONS_KEPT, Version, encode_version, find_differences, read_version
from headrace.store.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace import Headrace
    from tests.support.raw import Raw


def body(concurrency: int = 5, note: str = "") -> bytes:
    return encode_version({"QUEUE_CONCURRENCY": str(concurrency)}, "ann", note)


async def test_the_first_version_is_1_and_the_time_is_the_servers(make_app: Callable[..., Headrace], raw: Raw) -> None:
    async with make_app() as app:
        versions = Versions(app.store)
        before = await versions.read(app.control)
        seconds, _ = raw("TIME")
        number, at_ms = await versions.write(app.control, 0, body(note="why"))
        after = await versions.read(app.control)

    assert before == NO_VERSION
    assert (number, at_ms // 1000 - int(seconds) in {0, 1}) == (1, True)
    assert after == Version(1, {"QUEUE_CONCURRENCY": "5"}, at_ms, "ann", "why")


async def test_a_writer_that_has_not_seen_the_latest_version_is_refused_and_told_who_was_faster(
    make_app: Callable[..., Headrace],
) -> None:
    async with make_app() as app:
        versions = Versions(app.store)
        await versions.write(app.control, 0, body(5))
        with pytest.raises(SettingsConflict, match="at version 1, written by ann, no longer at version 0") as caught:
            await versions.write(app.control, 0, body(7))
        latest = await versions.read(app.control)

    assert (caught.value.expected_version, caught.value.found_version) == (0, 1)
    assert latest.values == {"QUEUE_CONCURRENCY": "5"}


async def test_of_many_writers_at_once_one_wins_each_round(make_app: Callable[..., Headrace]) -> None:
    async with make_app() as app:
        versions = Versions(app.store)

        async def write(value: int) -> bool:
            try:
                await versions.write(app.control, 0, body(value))
            except SettingsConflict:
                return False
            return True

        won = await asyncio.gather(*(write(value) for value in range(1, 21)))
        latest = await versions.read(app.control)

    assert sum(won) == 1
    assert latest.values == {"QUEUE_CONCURRENCY": str(won.index(True) + 1)}


async def test_only_so_many_versions_are_kept(make_app: Callable[..., Headrace]) -> None:
    async with make_app() as app:
        versions = Versions(app.store)
        for number in range(VERSIONS_KEPT + 3):
            await versions.write(app.control, number, body(number + 1))
        history = await versions.history(app.control)
        with pytest.raises(SettingError, match=r"version 3 .* is not there: 4 to 103 are kept"):
            await versions.read(app.control, 3)

    assert [version.number for version in history] == list(range(VERSIONS_KEPT + 3, 3, -1))


async def test_a_version_that_something_else_wrote_is_refused_and_leaves_the_history_readable(
    make_app: Callable[..., Headrace], raw: Raw, prefix: str
) -> None:
    async with make_app() as app:
        versions = Versions(app.store)
        await versions.write(app.control, 0, body())
        raw("HSET", f"{prefix}:settings", "1", "nonsense")
        with pytest.raises(SettingError, match="cannot be read: 8 bytes") as caught:
            await versions.read(app.control)
        history = await versions.history(app.control)

    assert caught.value.source == "fleet"
    assert [(version.number, version.note) for version in history] == [(1, "cannot be read")]


@pytest.mark.parametrize("stored", [b"", b"1", b"x \x94", b"1 \x90", b"1 \x94\x80\x01\xa0\x00", b"\xff \xff"])
def test_bytes_that_are_no_version_are_refused(stored: bytes) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_version(1, stored)


@pytest.mark.parametrize(("author", "note"), [("a" * 101, ""), ("a", "n" * 501), ("a\n", ""), ("a", "\x1b[31m")])
def test_an_author_or_a_note_that_is_too_long_or_cannot_be_printed_is_refused(author: str, note: str) -> None:
    with pytest.raises(OptionError, match="printable characters"):
        encode_version({}, author, note)


def test_differences_name_both_values_and_the_default_for_what_is_not_stored() -> None:
    found = find_differences(
        {"HEADRACE_THREADS": "4", "HEADRACE_GRACE": "5", "HEADRACE_NEWER": "1"},
        {"HEADRACE_THREADS": "4", "REDIS_MAX_CONNECTIONS": "50"},
    )

    assert [(str(each), each.change) for each in found] == [
        ("REDIS_MAX_CONNECTIONS 100 -> 50", "live"),
        ("HEADRACE_GRACE 5 -> 25", "restart"),
        ("HEADRACE_NEWER 1 -> none", "local"),
    ]
