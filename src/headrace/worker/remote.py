"""Exceptions that cross from a child process to its worker: described by names and text there, rebuilt here.

What is rebuilt serves `isinstance`, as `retry_on` and middlewares use it, and what is kept of a failure. Its `__init__`
is not called and its other attributes are lost: only plain text travels, and no code is imported for it.
"""

from __future__ import annotations

import sys
from typing import Any

from headrace.errors import RemoteError
from headrace.retry import Retry
from headrace.worker.frames import Failed
from headrace.worker.location import MAIN, MAIN_ELSEWHERE
from headrace.worker.verdict import describe_failure


def describe(error: BaseException) -> Failed:
    """Return what another process can rebuild and record of an exception."""
    failure = describe_failure(error, 0, 0)
    own, *bases = type(error).__mro__
    # An exception that is known only as an Exception says no more than a RemoteError does.
    kinds = [own, *(base for base in bases if base not in (Exception, BaseException, object))]
    return Failed(
        kinds=[(_main_for(kind.__module__), kind.__qualname__) for kind in kinds],
        name=_main_for(failure.error),
        message=failure.message,
        traceback=failure.traceback,
        after=error.after if isinstance(error, Retry) else None,
        reason=error.reason if isinstance(error, Retry) else "",
    )


def rebuild(failed: Failed) -> BaseException:
    """Return an exception of the class that was raised, or of its nearest bases that this process has loaded.

    SystemExit is rebuilt too; any other class beside `Exception` becomes a RemoteError, since here it might mean more
    than the end of one job.
    """
    kept: list[type[BaseException]] = []
    for module, qualname in failed.kinds:
        kind = _find(module, qualname)
        if kind is not None and not any(issubclass(other, kind) for other in kept):
            kept.append(kind)
    error = _blank(failed, kept)
    # Why: written past a `__setattr__` of the class, which may refuse.
    vars(error).update(headrace_class=failed.name, headrace_message=failed.message, headrace_traceback=failed.traceback)
    BaseException.__setattr__(error, "args", (failed.message,))
    if isinstance(error, Retry):
        vars(error).update(after=failed.after, reason=failed.reason)
    return error


def _main_for(name: str) -> str:
    return MAIN + name.removeprefix(MAIN_ELSEWHERE) if name.startswith(MAIN_ELSEWHERE) else name


def _find(module: str, qualname: str) -> type[BaseException] | None:
    main = sys.modules[MAIN]
    started_as = getattr(getattr(main, "__spec__", None), "name", None)
    found: Any = main if module == started_as else sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    if isinstance(found, type) and issubclass(found, (Exception, SystemExit)):
        return found
    return None


def _blank(failed: Failed, kinds: list[type[BaseException]]) -> BaseException:
    if not kinds:
        return RemoteError()
    try:
        kind: Any = kinds[0] if len(kinds) == 1 else type(failed.kinds[0][1], tuple(kinds), {})
        error: object = kind.__new__(kind)
    except Exception:  # noqa: BLE001 - a class may refuse to be made in any way it likes
        return RemoteError()
    return error if isinstance(error, BaseException) else RemoteError()
