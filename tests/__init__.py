"""The tests; a package, so that helpers are imported as `tests.…` and no installed `tests` gets in the way."""
