"""Set up what every test shares."""

from __future__ import annotations

from hypothesis import settings

# A failing example is printed so that it can be replayed. No deadline per example: a loaded machine is no fault of the
# code, and pytest's timeout ends a test that hangs.
settings.register_profile("headrace", deadline=None, print_blob=True)
settings.load_profile("headrace")
