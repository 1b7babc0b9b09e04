"""What a cluster asks of its clients, without I/O: which slot a command belongs to, who serves it, and what is left.

The pool knows no jobs: it reads the first key of each packed command, and the slot from the key. A batch is parted by
node, and its replies are put together again in the order of the commands.

Source: "Redis cluster specification", redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import hiredis
from redis.crc import key_slot

from headrace.errors import ConnectionLost
from headrace.pool.connection import ServerReplyError
from headrace.resp import pack_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Commands whose first key stands behind the number of keys, and where that number stands.
NUMBERED: Final = frozenset({b"EVALSHA", b"EVAL", b"EVALSHA_RO", b"EVAL_RO", b"FCALL", b"FCALL_RO"})
#: Commands without a key: they go where the command before them goes, which WAIT is about, or else home. What changes a
#: whole server goes to every server that the batch goes to.
KEYLESS: Final = frozenset(
    {b"PING", b"INFO", b"PUBLISH", b"TIME", b"CLIENT", b"CLUSTER", b"CONFIG", b"HELLO", b"ROLE", b"WAIT"}
)
EVERYWHERE: Final = frozenset({b"SCRIPT"})
#: The words of a command that are read for its key: name, script, number of keys, key.
HEAD_WORDS: Final = 4
#: Replies that say: nothing was done, and another node, or the same one a little later, will do it.
ELSEWHERE: Final = frozenset({"MOVED", "ASK"})
LATER: Final = frozenset({"TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "UNBLOCKED", "READONLY"})

ASKING: Final = pack_command("ASKING")
PING: Final = pack_command("PING")
CLUSTER_SLOTS: Final = pack_command("CLUSTER", "SLOTS")

#: Redirects in a row that are followed without a wait.
FREE_HOPS: Final = 2
#: Longest wait for a connection to one node before the slot map is looked at again, seconds.
OPEN_WAIT: Final = 0.5
#: So long commands that were not carried out are sent again while others of their batch have their answers, seconds.
PATIENCE: Final = 0.25


class Place(NamedTuple):
    """Host and port of a node."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return both as people write them."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who serves which slots: ranges in order, each with its primary and the replicas of it.

    Example:
        >>> slots = parse_slots([[0, 99, [b"a", 1, b"id"]], [200, 300, [b"", 2, b"id"]]], asked=Place("b", 2))
        >>> slots.primary(99), slots.primary(100), slots.primary(200)
        (Place(host='a', port=1), None, Place(host='b', port=2))
    """

    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    primaries: tuple[Place, ...] = ()
    replicas: frozenset[Place] = frozenset()

    def primary(self, slot: int) -> Place | None:
        """Return who serves a slot; None when nobody does."""
        at = bisect_right(self.starts, slot) - 1
        return self.primaries[at] if at >= 0 and slot <= self.ends[at] else None

    @property
    def nodes(self) -> tuple[Place, ...]:
        """All primaries, each once, then all replicas."""
        return (*dict.fromkeys(self.primaries), *sorted(self.replicas))


def parse_slots(reply: Any, asked: Place) -> SlotMap:
    """Read the reply of CLUSTER SLOTS; a node without a name of its own is the one that was asked."""
    rows = sorted((row for row in reply if len(row) > 2), key=lambda row: int(row[0]))  # noqa: PLR2004 - first, last, node
    replicas = {_place(node, asked) for row in rows for node in row[3:]}
    return SlotMap(
        tuple(int(row[0]) for row in rows),
        tuple(int(row[1]) for row in rows),
        tuple(_place(row[2], asked) for row in rows),
        frozenset(replicas),
    )


def _place(node: Any, asked: Place) -> Place:
    host = node[0].decode() if node[0] else ""
    return Place(asked.host if host in {"", "?"} else host, int(node[1]))


@dataclass(frozen=True, slots=True)
class Command:
    """One packed command: its slot, None without a key; `everywhere` when each node of a batch gets it."""

    payload: bytes
    slot: int | None
    everywhere: bool = False


def split_commands(payload: bytes, count: int) -> list[Command]:
    r"""Part packed commands and find the slot of each.

    Measured: benchmarks/cluster.py prints what this costs a batch.

    Example:
        >>> packed = pack_command("GET", "{mail}:a") + pack_command("PING") + pack_command("EVALSHA", "x", 1, "mail")
        >>> [command.slot for command in split_commands(packed, 3)]
        [4247, 4247, 4247]
    """
    if count == 1:
        # Why: the key of a large batch of one command stands in its head; the rest need not be read.
        return [_command(payload, _read_head(payload))]
    reader = hiredis.Reader()
    reader.feed(payload)
    found: list[Command] = []
    for _ in range(count):
        words = reader.gets()
        found.append(_command(pack_command(*words), words, found[-1].slot if found else None))
    return found


def _read_head(payload: bytes) -> list[bytes]:
    """Return the first words of a packed command, as many as are needed to find its key."""
    at = payload.index(b"\n")
    words: list[bytes] = []
    for _ in range(min(HEAD_WORDS, int(payload[1:at]))):
        end = payload.index(b"\n", at + 1)
        size = int(payload[at + 2 : end])
        words.append(payload[end + 1 : end + 1 + size])
        at = end + size + 2
    return words


def _command(payload: bytes, words: Sequence[bytes], before: int | None = None) -> Command:
    name = words[0].upper()
    if name in EVERYWHERE:
        return Command(payload, None, everywhere=True)
    if name in KEYLESS or len(words) == 1:
        return Command(payload, before)
    if name not in NUMBERED:
        return Command(payload, key_slot(words[1]))
    has_key = len(words) >= HEAD_WORDS and words[2] != b"0"
    return Command(payload, key_slot(words[HEAD_WORDS - 1]) if has_key else before)


@dataclass(frozen=True, slots=True)
class Redirect:
    """A reply that says where a slot is, for one command only (`once`), or, without a place, to come again."""

    place: Place | None
    slot: int = -1
    once: bool = False


def read_redirect(reply: Any, asked: Place) -> Redirect | None:
    """Return what a reply says about where to go; None when the command was carried out, or refused for good.

    Example:
        >>> read_redirect(ServerReplyError("MOVED 3999 127.0.0.1:6381"), Place("a", 1))
        Redirect(place=Place(host='127.0.0.1', port=6381), slot=3999, once=False)
        >>> read_redirect(ServerReplyError("WRONGTYPE of key"), Place("a", 1))
    """
    if not isinstance(reply, ServerReplyError):
        return None
    if reply.code in ELSEWHERE:
        _, slot, where = reply.text.split(" ", 2)
        host, _, port = where.split(" ", 1)[0].rpartition(":")
        place = Place(host.strip("[]") or asked.host, int(port))
        return Redirect(place, int(slot), once=reply.code == "ASK")
    return Redirect(None) if reply.code in LATER else None


@dataclass(slots=True)
class Part:
    """Commands of one batch for one node: their indexes, -1 for what only another reply needs."""

    place: Place
    payload: bytes
    indexes: list[int]


@dataclass(slots=True)
class Batch:
    """Commands on their way: which are left, what the others answered, and what the last redirects said.

    A command whose reply is a redirect was not carried out, and stays. Its reply is kept as its answer for the case
    that time runs out.
    """

    commands: list[Command]
    answers: list[Any] = field(init=False)
    left: list[int] = field(init=False)
    asked: dict[int, Place] = field(default_factory=dict)
    moved: dict[int, Place] = field(default_factory=dict)
    told: set[Place] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.answers = [None] * len(self.commands)
        self.left = list(range(len(self.commands)))

    @property
    def is_redirected(self) -> bool:
        """Whether it is known of all that is left where it is to go."""
        return all(index in self.asked or self.commands[index].slot in self.moved for index in self.left)

    @property
    def is_missed(self) -> bool:
        """Whether all that is left could not be sent, since its nodes are away."""
        return all(isinstance(self.answers[index], ConnectionLost) for index in self.left)

    def plan(self, slots: SlotMap, home: Place) -> list[Part]:
        """Part what is left by node; a command whose slot nobody serves is in no part.

        Args:
            slots: Who serves what.
            home: Who gets commands without a key.
        """
        groups: dict[Place, list[int]] = {}
        broad = [index for index, command in enumerate(self.commands) if command.everywhere]
        for index in self.left:
            command = self.commands[index]
            if command.everywhere:
                continue
            place = home if command.slot is None else self._place_of(index, command.slot, slots)
            if place is not None:
                groups.setdefault(place, []).append(index)
        if broad and not groups and not self.told:
            groups = {place: [] for place in dict.fromkeys(slots.primaries)}
        # Why: a command that is sent on to another node may need there what the batch told the first one.
        return [
            self._part(place, [*([] if place in self.told else broad), *indexes]) for place, indexes in groups.items()
        ]

    def _place_of(self, index: int, slot: int, slots: SlotMap) -> Place | None:
        return self.asked.get(index) or self.moved.get(slot) or slots.primary(slot)

    def _part(self, place: Place, indexes: list[int]) -> Part:
        payload: list[bytes] = []
        where: list[int] = []
        for index in indexes:
            if index in self.asked:
                payload.append(ASKING)
                where.append(-1)
            payload.append(self.commands[index].payload)
            where.append(index)
        return Part(place, b"".join(payload), where)

    def take(self, part: Part, replies: Iterable[Any]) -> None:
        """Enter the replies of a part; what was sent elsewhere, or is to come again, stays."""
        done: set[int] = set()
        self.told.add(part.place)
        for index, reply in zip(part.indexes, replies, strict=True):
            if index < 0:
                continue
            self.asked.pop(index, None)
            self.answers[index] = reply
            redirect = read_redirect(reply, part.place)
            if redirect is None:
                done.add(index)
            elif redirect.once and redirect.place is not None:
                self.asked[index] = redirect.place
            elif redirect.place is not None:
                self.moved[redirect.slot] = redirect.place
        self._forget(done)

    def lose(self, part: Part, error: ConnectionLost) -> None:
        """Note that the replies of a part will not come: what it did is unknown, so that it is not sent again."""
        for index in part.indexes:
            if index >= 0:
                self.answers[index] = error
        self._forget(set(part.indexes))

    def miss(self, part: Part, error: ConnectionLost) -> None:
        """Note that a part could not be sent; it stays, for whoever serves its slots then."""
        for index in part.indexes:
            if index >= 0:
                self.answers[index] = error
                self.asked.pop(index, None)
                slot = self.commands[index].slot
                if slot is not None:
                    self.moved.pop(slot, None)

    def end(self, where: str, *, all_lost: bool = False) -> list[Any]:
        """Return the answers in the order of the commands; a ConnectionLost stands for what was not carried out.

        Args:
            where: How the cluster is called in errors.
            all_lost: Return the answers also when each is a ConnectionLost.

        Raises:
            ConnectionLost: There is no other answer, and it may be raised.
        """
        for index in self.left:
            answer = self.answers[index]
            if not isinstance(answer, ConnectionLost):
                said = "no node serves it" if answer is None else str(answer)
                text = f"{where}: slot {self.commands[index].slot} did not take a command in time: {said}"
                self.answers[index] = ConnectionLost(text + ". Look at CLUSTER INFO there.")
        if not all_lost and self.answers and all(isinstance(answer, ConnectionLost) for answer in self.answers):
            raise self.answers[0]
        return self.answers

    def _forget(self, done: set[int]) -> None:
        self.left = [index for index in self.left if index not in done]
