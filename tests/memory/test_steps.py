"""The steps of memory and the pace of relief: a plain model of both, and what must hold of every run."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.memory.steps import (
    IN_VAIN,
    PAUSE,
    PAUSE_WORTHWHILE,
    WORTHWHILE,
    Pacing,
    Step,
    Thresholds,
    next_step,
    plan_slots,
)

SHARES = st.floats(0.0, 3.0)
PERCENTS = st.integers(20, 95)


@given(st.sampled_from(Step), SHARES, PERCENTS)
def test_a_step_fits_its_reading(step: Step, share: float, percent: int) -> None:
    thresholds = Thresholds.of(percent)

    after = next_step(step, share, thresholds)

    # Never below what the reading asks for, and above it only within the margin.
    asked = max(one for one in Step if share >= thresholds.begin(one))
    assert after >= asked
    if after > asked:
        assert after <= step
        assert share >= thresholds.begin(after) - thresholds.margin
    assert next_step(after, share, thresholds) == after


@given(st.sampled_from(Step), SHARES, SHARES, PERCENTS)
def test_a_higher_reading_never_leads_to_a_lower_step(step: Step, one: float, other: float, percent: int) -> None:
    thresholds = Thresholds.of(percent)

    low, high = (next_step(step, share, thresholds) for share in sorted((one, other)))

    assert low <= high


@given(st.lists(st.floats(0.76, 0.84), max_size=60))
def test_a_reading_that_hovers_around_a_threshold_changes_the_step_once(shares: list[float]) -> None:
    thresholds = Thresholds.of(80)
    steps = [Step.NORMAL]

    for share in shares:
        steps.append(next_step(steps[-1], share, thresholds))

    assert sum(one != other for one, other in itertools.pairwise(steps)) <= 1


@given(PERCENTS)
def test_the_thresholds_are_in_order_below_the_limit(percent: int) -> None:
    thresholds = Thresholds.of(percent)

    assert 0 < thresholds.margin < thresholds.elevated < thresholds.high < thresholds.critical < 1
    assert thresholds.elevated - thresholds.margin > 0


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from(Step))
def test_a_worker_keeps_one_slot_and_never_gets_more_than_it_has(allowed: int, concurrency: int, step: Step) -> None:
    slots = plan_slots(allowed, concurrency, step)

    assert 1 <= slots <= concurrency


@given(st.integers(1, 10_000))
def test_slots_go_down_to_one_and_come_back(concurrency: int) -> None:
    needed = math.ceil(math.log2(concurrency)) + 1
    allowed = concurrency
    for _ in range(needed):
        allowed = plan_slots(allowed, concurrency, Step.HIGH)
    lowest = allowed
    for _ in range(needed):
        allowed = plan_slots(allowed, concurrency, Step.NORMAL)

    assert (lowest, allowed) == (1, concurrency)


BUDGET = 1_000_000


class PacingMachine(RuleBasedStateMachine):
    """Run the pace against a list of all attempts that were ever made."""

    def __init__(self) -> None:
        super().__init__()
        self.pacing = Pacing()
        self.now = 0.0
        self.used = 800_000
        self.attempts: list[tuple[float, float]] = []
        self.held_at: int | None = None
        self.in_vain = 0

    @rule(seconds=st.floats(0.1, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(used=st.integers(100_000, 1_200_000))
    def memory_changes(self, used: int) -> None:
        self.used = used

    @rule()
    def recovers(self) -> None:
        self.pacing.recovered()
        self.held_at, self.in_vain = None, 0

    @rule()
    def is_never_due_in_normal(self) -> None:
        assert not self.pacing.is_due(self.now, Step.NORMAL, self.used, BUDGET)

    @rule(step=st.sampled_from([Step.ELEVATED, Step.HIGH, Step.CRITICAL]), share=st.floats(-0.05, 0.3))
    def reads(self, step: Step, share: float) -> None:
        if self.held_at is not None and self.used - self.held_at >= BUDGET // 10:
            self.held_at, self.in_vain = None, 0
        pause = PAUSE_WORTHWHILE if self.attempts and self.attempts[-1][1] >= WORTHWHILE else PAUSE
        due = self.held_at is None and (not self.attempts or self.now - self.attempts[-1][0] >= pause)

        assert self.pacing.is_due(self.now, step, self.used, BUDGET) == due

        if due:
            freed = round(self.used * share)
            share = freed / self.used
            self.in_vain = self.in_vain + 1 if share < IN_VAIN else 0
            became_held = self.pacing.note(self.now, self.used, freed)
            self.attempts.append((self.now, share))
            assert became_held == (self.in_vain == 2)
            if became_held:
                self.held_at = self.used - freed

    @invariant()
    def attempts_are_never_a_storm(self) -> None:
        for (one, share), (other, _) in itertools.pairwise(self.attempts):
            assert other - one >= (PAUSE_WORTHWHILE if share >= WORTHWHILE else PAUSE) - 1e-6

    @invariant()
    def what_is_held_is_known(self) -> None:
        assert self.pacing.is_held == (self.held_at is not None)


TestPacing = PacingMachine.TestCase
