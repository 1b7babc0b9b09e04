"""Which jobs are measured: each kind is planned from a seed, so that a run can be repeated with the same inputs."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind: TypeAlias = Literal["no-op", "sleep", "cpu"]
KINDS: Final[tuple[Kind, ...]] = ("no-op", "sleep", "cpu")
#: A text of this length goes with each job that is not about its size.
TEXT: Final = "x" * 200
#: Bytes of a big payload. It is random, so that compressing it gains little.
BIG_BYTES: Final = 65_536
MANY_QUEUES: Final = 300
#: Jobs of one burst, and seconds between two.
BURST_JOBS: Final = 200
BURST_INTERVAL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Call:
    """One job: what it does, how much of it (seconds, or rounds of hashing), its text, and its queue."""

    kind: Kind
    amount: float
    text: str
    queue: str


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load.

    Attributes:
        name: As `--only` names it.
        text: What it is, in a few words.
        jobs: How many, at full scale.
        drains: Whether all jobs wait before the worker starts; else they come while it runs, and their delay counts.
    """

    name: str
    text: str
    jobs: int
    drains: bool = True


#: In the order in which they are measured.
WORKLOADS: Final = {
    each.name: each
    for each in (
        Workload("no-op", "jobs that do nothing", 20_000),
        Workload("sleep", "jobs that wait 5 to 15 ms", 4_000),
        Workload("cpu", "jobs that compute for about half a millisecond", 2_000),
        Workload("mixed", "of ten jobs seven do nothing, two wait, one computes", 5_000),
        Workload("big", f"payloads of {BIG_BYTES // 1024} KiB", 500),
        Workload("queues", f"jobs that do nothing, in {MANY_QUEUES} queues", 10_000),
        Workload("bursty", f"{BURST_JOBS} jobs at once, each {BURST_INTERVAL:g} s", 4_000, drains=False),
    )
}


def plan_jobs(name: str, count: int, seed: int) -> list[Call]:
    """Return the jobs of a workload; the same for the same arguments, on every machine.

    Args:
        name: One of `WORKLOADS`.
        count: How many.
        seed: Whatever is drawn is drawn from it.

    Example:
        >>> (
        ...     plan_jobs("mixed", 50, 7) == plan_jobs("mixed", 50, 7),
        ...     plan_jobs("mixed", 50, 7) == plan_jobs("mixed", 50, 8),
        ... )
        (True, False)
        >>> sorted({call.kind for call in plan_jobs("mixed", 50, 7)})
        ['cpu', 'no-op', 'sleep']
    """
    draw = random.Random(f"{seed} {name}")  # noqa: S311 - a load to be repeated, and no secret
    return [_plan_one(name, index, draw) for index in range(count)]


def _plan_one(name: str, index: int, draw: random.Random) -> Call:
    if name == "queues":
        return Call("no-op", 0.0, TEXT, f"bench-{index % MANY_QUEUES}")
    if name == "big":
        return Call("no-op", 0.0, base64.b85encode(draw.randbytes(BIG_BYTES * 4 // 5)).decode(), "bench")
    kind: Kind = "no-op"
    if name in {"sleep", "cpu"}:
        kind = name  # type: ignore[assignment]  # the two names are kinds too
    elif name == "mixed":
        kind = draw.choices(KINDS, (7, 2, 1))[0]
    amount = {"no-op": 0.0, "sleep": draw.uniform(0.005, 0.015), "cpu": float(draw.randint(400, 800))}[kind]
    return Call(kind, amount, TEXT, "bench")


def digest_of(calls: Iterable[Call]) -> str:
    """Return a short hash over jobs, by which two runs can be seen to have had the same."""
    digest = hashlib.sha256()
    for call in calls:
        digest.update(f"{call.kind} {call.amount!r} {call.queue} {call.text}\n".encode())
    return digest.hexdigest()[:16]
