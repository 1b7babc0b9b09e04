"""The worker: reserve, run, settle, and keep the leases that say so."""
