"""The part of a cluster client without I/O: slots of commands, the slot map, and a batch on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from headrace.errors import ConnectionLost
from headrace.pool.connection import ServerReplyError
from headrace.pool.slots import Batch, Place, SlotMap, parse_slots, read_redirect, split_commands
from headrace.resp import pack_command

if TYPE_CHECKING:
    import random

ONE, TWO, THREE = Place("one", 1), Place("two", 2), Place("three", 3)
THIRDS = SlotMap((0, 5461, 10_923), (5460, 10_922, 16_383), (ONE, TWO, THREE))

words = st.binary(max_size=40)
keys = st.one_of(
    st.binary(min_size=1, max_size=20), st.sampled_from([b"p:{mail}:jobs", b"{}x", b"{a", b"a}b{c}", b"{b}{c}"])
)
keyed = st.builds(lambda key, rest: (b"SET", key, *rest), keys, st.lists(words, max_size=5))
scripts = st.builds(lambda key, rest: (b"EVALSHA", b"0" * 40, b"1", key, *rest), keys, st.lists(words, max_size=5))


@given(st.lists(st.one_of(keyed, scripts), min_size=1, max_size=8))
def test_a_payload_is_parted_into_its_commands_and_their_slots(commands: list[tuple[bytes, ...]]) -> None:
    packed = [pack_command(*command) for command in commands]

    found = split_commands(b"".join(packed), len(packed))

    assert [command.payload for command in found] == packed
    assert [command.slot for command in found] == [
        key_slot(command[1] if command[0] == b"SET" else command[3]) for command in commands
    ]


def test_a_command_without_a_key_goes_where_the_one_before_it_goes() -> None:
    payload = pack_command("PING") + pack_command("SET", "mail", "x") + pack_command("WAIT", 1, 100)

    slots = [command.slot for command in split_commands(payload, 3)]

    assert slots == [None, key_slot(b"mail"), key_slot(b"mail")]


def test_a_node_that_names_no_host_is_the_one_that_was_asked() -> None:
    reply = [[5461, 16_383, [None, 2, b"id"], [b"replica", 4, b"id"]], [0, 5460, [b"one", 1, b"id"]]]

    slots = parse_slots(reply, asked=TWO)

    assert slots.primary(0) == ONE
    assert slots.primary(16_383) == TWO
    assert slots.nodes == (ONE, TWO, Place("replica", 4))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MOVED 3999 127.0.0.1:6381", (Place("127.0.0.1", 6381), 3999, False)),
        ("ASK 3999 fd00::1:6381", (Place("fd00::1", 6381), 3999, True)),
        ("MOVED 3999 :6381", (Place("one", 6381), 3999, False)),
        ("MOVED 3999 [fd00::1]:6381", (Place("fd00::1", 6381), 3999, False)),
        ("TRYAGAIN Multiple keys request during rehashing of slot", (None, -1, False)),
        ("CLUSTERDOWN The cluster is down", (None, -1, False)),
    ],
)
def test_a_redirect_says_where_to_go(text: str, expected: tuple[Place | None, int, bool]) -> None:
    redirect = read_redirect(ServerReplyError(text), asked=ONE)

    assert redirect is not None
    assert (redirect.place, redirect.slot, redirect.once) == expected


@given(st.lists(keys, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_each_command_is_answered_once_and_in_its_place_whatever_the_redirects(
    names: list[bytes], chance: random.Random
) -> None:
    batch = Batch(split_commands(b"".join(pack_command("GET", name) for name in names), len(names)))
    executed: list[int] = []
    for _ in range(50):
        for part in batch.plan(THIRDS, home=ONE):
            replies: list[Any] = []
            for index in part.indexes:
                slot = key_slot(names[index]) if index >= 0 else 0
                word = "" if index < 0 else chance.choice(["", "", "MOVED", "ASK", "TRYAGAIN"])
                where = chance.choice([ONE, TWO, THREE])
                if word:
                    replies.append(ServerReplyError(f"{word} {slot} {where.host}:{where.port}"))
                else:
                    executed += [index] if index >= 0 else []
                    replies.append(names[index] if index >= 0 else b"OK")
            batch.take(part, replies)
        if not batch.left:
            break

    assert sorted(executed) == list(range(len(names)))
    assert batch.end("there") == names


def test_what_was_sent_without_an_answer_is_not_sent_again_and_what_was_not_sent_is() -> None:
    names = [f"k{at}" for at in range(20)]
    batch = Batch(split_commands(b"".join(pack_command("GET", name) for name in names), 20))
    first, second, third = sorted(batch.plan(THIRDS, home=ONE), key=lambda part: part.place)

    batch.take(first, [b"answer"] * len(first.indexes))
    batch.lose(second, ConnectionLost("cut"))
    batch.miss(third, ConnectionLost("refused"))

    assert sorted(index for part in batch.plan(THIRDS, home=ONE) for index in part.indexes) == sorted(third.indexes)
    assert batch.is_missed
    answers = batch.end("there")
    assert [index for index in range(20) if answers[index] == b"answer"] == sorted(first.indexes)
    assert all(isinstance(answers[index], ConnectionLost) for index in [*second.indexes, *third.indexes])


def test_a_script_that_is_loaded_goes_to_each_node_that_the_batch_comes_to() -> None:
    load, call = pack_command("SCRIPT", "LOAD", "return 1"), pack_command("GET", "mail")
    batch = Batch(split_commands(load + call, 2))
    home = THIRDS.primary(key_slot(b"mail"))
    (part,) = batch.plan(THIRDS, home=ONE)
    moved = ServerReplyError(f"MOVED {key_slot(b'mail')} two:2")

    batch.take(part, [b"sha", moved])
    (again,) = batch.plan(THIRDS, home=ONE)

    assert part.place == home
    assert again.place == TWO
    assert again.payload == load + call


def test_a_slot_that_nobody_serves_is_an_error_that_names_it() -> None:
    batch = Batch(split_commands(pack_command("GET", "mail"), 1))

    parts = batch.plan(SlotMap((0,), (10,), (ONE,)), home=ONE)

    assert parts == []
    with pytest.raises(ConnectionLost, match="slot 4247 did not take a command in time: no node serves it"):
        batch.end("the cluster at redis+cluster://one:1/")
