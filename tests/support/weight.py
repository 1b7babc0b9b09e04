"""What objects really take in memory, with everything that only they hold."""

from __future__ import annotations

import gc
import sys
import types
from typing import Any

#: Belongs to the program, whatever refers to it.
PROGRAM = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.FrameType,
    types.CodeType,
)  # fmt: skip


def weigh_all(*roots: Any, beside: tuple[Any, ...] = ()) -> int:
    """Return the bytes of objects and of all that they lead to, each counted once.

    Args:
        roots: Where to begin.
        beside: What they lead to and do not own.
    """
    seen = {id(one) for one in beside}
    size = 0
    pending = list(roots)
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, PROGRAM):
            continue
        seen.add(id(one))
        size += sys.getsizeof(one)
        pending += gc.get_referents(one)
    return size
