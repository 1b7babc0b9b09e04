"""The scripts on a real server do what a plain model does, whatever workers, producers and operators do in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.store_machine import StoreMachine

if TYPE_CHECKING:
    from headrace.server import PrivateServer


@pytest.mark.timeout(180)
def test_the_store_does_what_the_model_does(server: PrivateServer) -> None:
    machine = type("Machine", (StoreMachine,), {"url": server.url})

    run_state_machine_as_test(
        machine, settings=settings(max_examples=120, stateful_step_count=40, report_multiple_bugs=False)
    )
