"""Proof on the user's own settings and server: `headrace verify` with load and faults, `headrace doctor` without."""
