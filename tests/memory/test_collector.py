"""The collector of a worker: measured, set, set back, and never full by itself."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import pytest

from headrace.memory.collector import FULL_AFTER, FULL_INTERVAL, FULL_PATIENCE, Collector, PauseRing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    collector.watch()
    yield collector
    collector.restore()
    collector.unwatch()


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def make_garbage(count: int) -> None:
    for _ in range(count):
        Knot()


def test_its_pauses_are_counted_by_generation(collector: Collector) -> None:
    gc.collect(0)
    gc.collect(2)

    stats = collector.stats()
    assert stats.collections[0] >= 1
    assert stats.full_pauses.count == 1
    assert 0 < stats.full_pauses.p50 <= stats.full_pauses.maximum <= stats.pauses.maximum


def test_a_tuned_one_makes_no_full_collection_by_itself(collector: Collector) -> None:
    collector.tune()
    before = collector.stats()

    make_garbage(600_000)

    after = collector.stats()
    assert after.frozen > 0
    assert after.collections[1] > before.collections[1]
    assert after.collections[2] == before.collections[2]


def test_it_is_set_back_to_how_it_was(collector: Collector) -> None:
    before = gc.get_threshold()
    collector.tune()
    collector.restore()

    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_a_full_collection_waits_for_an_idle_moment_and_not_for_ever(collector: Collector) -> None:
    collector.tune()
    now = time.monotonic()
    early = collector.is_full_due(now + FULL_INTERVAL + 1, idle=True)
    for _ in range(FULL_AFTER):
        gc.collect(1)

    assert not early
    assert not collector.is_full_due(now, idle=True)
    assert collector.is_full_due(now + FULL_INTERVAL + 1, idle=True)
    assert not collector.is_full_due(now + FULL_INTERVAL + 1, idle=False)
    assert collector.is_full_due(now + FULL_INTERVAL + FULL_PATIENCE + 1, idle=False)


def test_what_was_frozen_is_collected_when_asked_for(collector: Collector) -> None:
    knots = [Knot() for _ in range(1_000)]
    collector.tune()
    knots.clear()
    left = collector.collect()

    freed = collector.collect_frozen()

    assert left < 1_000
    assert freed >= 1_000
    assert collector.stats().frozen > 0


def test_quantiles_are_those_of_the_latest_pauses() -> None:
    ring = PauseRing()
    ring.add(9.0)
    for number in range(1_000):
        ring.add(number % 100 / 1_000)

    stats = ring.stats()

    assert (stats.count, stats.maximum) == (1_001, 9.0)
    assert stats.p50 == pytest.approx(0.05, abs=0.02)
    assert stats.p99 == pytest.approx(0.099, abs=0.002)
    assert 4_096 <= ring.size_bytes < 8_192
