"""Functions that the tests of errors run in child processes, which import this module."""

from __future__ import annotations

import os


class Unknown(BaseException):
    """No exception of a kind that may cross from one process to another."""


def die() -> None:
    os._exit(3)


def need_memory() -> int:
    return len(bytes(512 * 1_048_576))


def raise_unknown() -> None:
    raise Unknown("of its own kind")
