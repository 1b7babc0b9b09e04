"""The ledger of a pool agrees with a plain book, in whatever order its callers act."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.pool_book import PoolBook


@pytest.mark.timeout(180)
def test_the_ledger_keeps_its_invariants_whatever_happens_in_any_order() -> None:
    run_state_machine_as_test(
        PoolBook, settings=settings(max_examples=200, stateful_step_count=40, report_multiple_bugs=False)
    )
