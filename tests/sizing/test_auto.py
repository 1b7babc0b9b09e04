"""The size that follows the load: within its bounds, at rest under a constant load, quickly there after a step."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from headrace.sizing.auto import AutoOptions, Controller, Window
from headrace.sizing.demand import head_room

OPTIONS = AutoOptions(interval=1.0, target_wait=0.010, calm_windows=10, step=2, hold=20.0)
QUIET = Window(1.0, 0.0, 0.0, 0.0, 0, 0)

windows = st.builds(
    Window,
    interval=st.just(1.0),
    arrivals=st.floats(0, 100_000),
    service=st.floats(0, 100),
    wait=st.floats(0, 600),
    in_use=st.integers(0, 1_000),
    waiting=st.integers(0, 5_000),
    full=st.booleans(),
)


def users_on(size: int, users: int, service: float, interval: float = 1.0) -> Window:
    """What is seen when so many users call without a pause: a closed system, as fluid."""
    in_use = min(users, size)
    waiting = users - in_use
    arrivals = in_use / service
    return Window(interval, arrivals, service, waiting / arrivals if waiting else 0.0, in_use, waiting, in_use == size)


def run(controller: Controller, users: int, seconds: int, *, service: float = 0.05, highest: int = 1_000) -> list[int]:
    """Let users call for some time; returns the size after each second."""
    sizes = []
    for _ in range(seconds):
        change = controller.decide(users_on(controller.size, users, service), 4, highest)
        if change is not None:
            controller.applied(change.size)
        sizes.append(controller.size)
    return sizes


@given(
    seen=st.lists(windows, max_size=80),
    start=st.integers(1, 500),
    lowest=st.integers(1, 100),
    spread=st.integers(0, 400),
)
def test_it_never_leaves_its_bounds(seen: list[Window], start: int, lowest: int, spread: int) -> None:
    controller = Controller(start, OPTIONS)

    for window in seen:
        change = controller.decide(window, lowest, lowest + spread)
        if change is not None:
            assert lowest <= change.size <= lowest + spread
            assert change.size != controller.size
            controller.applied(change.size)


@given(seen=st.lists(windows, min_size=1, max_size=40), bounds=st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_it_follows_bounds_that_move(seen: list[Window], bounds: list[int]) -> None:
    controller = Controller(20, OPTIONS)

    for window, highest in zip(seen, bounds, strict=False):
        change = controller.decide(window, 1, highest)
        if change is not None:
            controller.applied(change.size)
        assert controller.size <= highest


@given(users=st.integers(0, 400), service=st.floats(0.001, 2.0), start=st.integers(4, 500))
def test_it_rests_under_a_constant_load(users: int, service: float, start: int) -> None:
    controller = Controller(start, OPTIONS)
    run(controller, users, 600, service=service)

    sizes = run(controller, users, 300, service=service)

    assert len(set(sizes)) == 1
    assert users_on(sizes[0], users, service).wait <= OPTIONS.target_wait


@given(before=st.integers(0, 50), after=st.integers(51, 400), service=st.floats(0.001, 0.9))
def test_after_a_step_waits_are_below_the_target_within_ten_windows(before: int, after: int, service: float) -> None:
    controller = Controller(10, OPTIONS)
    run(controller, before, 60, service=service)

    sizes = run(controller, after, 10, service=service)

    assert users_on(sizes[-1], after, service).wait <= OPTIONS.target_wait
    assert sizes[-1] <= head_room(after) + OPTIONS.step


@given(after=st.integers(0, 20), service=st.floats(0.001, 0.9))
def test_it_comes_back_slowly_when_the_load_is_gone(after: int, service: float) -> None:
    controller = Controller(10, OPTIONS)
    top = run(controller, 200, 20, service=service)[-1]

    sizes = run(controller, after, 300, service=service)

    steps = [(old, new) for old, new in zip([top, *sizes], sizes, strict=False) if new != old]
    assert all(new < old and new >= int(old * 0.75) for old, new in steps)
    assert sizes[: OPTIONS.calm_windows - 1] == [top] * (OPTIONS.calm_windows - 1)
    assert sizes[-1] <= max(10, 2 * head_room(after))


def test_random_arrivals_make_it_change_seldom() -> None:
    controller, chance, changes = Controller(10, OPTIONS), random.Random(7), 0
    for second in range(1_000):
        wanted = max(0, round(chance.gauss(40, math.sqrt(40))))
        change = controller.decide(users_on(controller.size, wanted, 0.05), 4, 1_000)
        if change is not None:
            controller.applied(change.size)
            changes += second > 200

    assert changes <= 4
    assert 40 <= controller.size <= 80


def test_a_server_that_answers_nobody_is_no_reason_to_grow() -> None:
    controller = Controller(10, OPTIONS)
    stuck = replace(QUIET, in_use=10, waiting=500, service=0.1, full=True)

    assert [controller.decide(stuck, 4, 1_000) for _ in range(50)] == [None] * 50


def test_waits_for_connections_that_are_being_opened_are_no_reason_to_grow() -> None:
    controller = Controller(20, OPTIONS)
    opening = Window(1.0, 50.0, 0.1, 0.5, 8, 60, full=False)

    assert [controller.decide(opening, 4, 1_000) for _ in range(50)] == [None] * 50


def test_waits_between_two_looks_make_it_grow_by_steps() -> None:
    controller = Controller(10, OPTIONS)
    burst = Window(1.0, 40.0, 0.05, 0.2, 1, 0, full=True)

    changes = [controller.decide(burst, 4, 1_000) for _ in range(2)]

    assert [change.size if change else None for change in changes] == [None, None] or changes[0] is not None


def test_a_size_that_proved_too_small_is_remembered_for_longer_each_time() -> None:
    controller = Controller(20, OPTIONS)
    calm, storm = Window(1.0, 10.0, 0.01, 0.0, 2, 0), Window(1.0, 300.0, 0.08, 0.2, 20, 60, full=True)
    stays = []
    for _ in range(3):
        grown = controller.decide(storm, 4, 24)
        assert grown is not None
        assert grown.size == 24
        controller.applied(grown.size)
        quiet = 0
        while controller.size > 20:
            quiet += 1
            change = controller.decide(calm, 4, 24)
            if change is not None:
                controller.applied(change.size)
        stays.append(quiet)

    assert stays[0] == 20
    assert stays[1] == 40
    assert stays[2] == 80


def test_a_refused_growth_leaves_the_size() -> None:
    controller = Controller(10, OPTIONS)

    change = controller.decide(users_on(10, 100, 0.05), 4, 1_000)
    again = controller.decide(users_on(10, 100, 0.05), 4, 1_000)

    assert change is not None
    assert again is not None
    assert change.size == again.size == 20
    assert controller.size == 10


def test_the_reason_names_what_was_seen() -> None:
    controller = Controller(10, OPTIONS)

    change = controller.decide(Window(1.0, 200.0, 0.05, 0.45, 10, 90, full=True), 4, 1_000)

    assert change is not None
    assert change.reason == "callers waited 450 ms on average, 90 wait now, 100 are wanted at once"
