"""What may be freed when memory runs short, each with the effect that it had: caches, garbage, and what malloc keeps.

Everything here runs where it is called and stops the process for as long as it takes, so the effect says how long that
was. Who decides when, and never inside a batch of jobs, is `headrace.memory.governor`.
"""

from __future__ import annotations

import contextlib
import linecache
import re
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import OptionError
from headrace.memory.probes import read_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.memory.collector import Collector

#: Effects that are remembered, bytes that one is taken for, and caches that may be registered.
EFFECTS: Final = 64
EFFECT_BYTES: Final = 500
CACHES: Final = 1_024


@dataclass(frozen=True, slots=True)
class Effect:
    """What one action freed and took.

    Attributes:
        action: Which one.
        reason: The step, or who asked.
        at: When, Unix time.
        freed_bytes: Resident size before it less that after it; negative when it grew meanwhile.
        seconds: How long it stopped the process.
        detail: What else there is to say of it.
    """

    action: str
    reason: str
    at: float
    freed_bytes: int
    seconds: float
    detail: str


class Cache:
    """Something that can be emptied when memory runs short; made by `Caches.register`, ended by `close`.

    Attributes:
        name: What it is.
    """

    __slots__ = ("_caches", "_limit_bytes", "_release", "_size", "name")

    def __init__(
        self,
        caches: dict[Cache, None],
        name: str,
        release: Callable[[], object] | None,
        size: Callable[[], int] | None,
        limit_bytes: int | Callable[[], int] | None,
    ) -> None:
        self._caches = caches
        self._release = release
        self._size = size
        self._limit_bytes = limit_bytes
        self.name = name

    @property
    def limit_bytes(self) -> int | None:
        """Return the most that it holds, None when it does not say."""
        return self._limit_bytes() if callable(self._limit_bytes) else self._limit_bytes

    @property
    def can_release(self) -> bool:
        """Whether it can be emptied."""
        return self._release is not None

    def size_bytes(self) -> int | None:
        """Return what it holds now, None when it does not say or cannot just now."""
        if self._size is None:
            return None
        try:
            return int(self._size())
        except Exception:  # noqa: BLE001 - the edge of somebody else's code, as a subscriber is
            return None

    def release(self) -> str:
        """Empty it; returns an error in words, or nothing."""
        if self._release is None:
            return ""
        try:
            self._release()
        except Exception as error:  # noqa: BLE001 - the edge of somebody else's code: one must not keep the others
            return f"{self.name}: {type(error).__name__}: {error}"[:200]
        return ""

    def close(self) -> None:
        """Forget it; a second call does nothing."""
        self._caches.pop(self, None)


class Actions:
    """Free memory in the ways there are, and remember what each was good for.

    Args:
        collector: Collects garbage.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._caches: dict[Cache, None] = {}
        self._effects: deque[Effect] = deque(maxlen=EFFECTS)

    def register(
        self,
        name: str,
        release: Callable[[], object] | None,
        *,
        size: Callable[[], int] | None = None,
        limit_bytes: int | Callable[[], int] | None = None,
    ) -> Cache:
        """Know of something that holds memory; see `Governor.register_cache`."""
        if not name or not all(function is None or callable(function) for function in (release, size)):
            raise OptionError(
                f"cache {name!r:.80}: expected a name, a function that empties it, and size= as a function that gives "
                "its bytes. Pass such functions, without arguments."
            )
        if len(self._caches) >= CACHES:
            raise OptionError(f"cache {name!r:.80}: there are {CACHES} already. Close one, or register them together.")
        cache = Cache(self._caches, name, release, size, limit_bytes)
        self._caches[cache] = None
        return cache

    def caches(self) -> list[Cache]:
        """Return what is registered."""
        return list(self._caches)

    def effects(self) -> list[Effect]:
        """Return the latest effects, the last one at the end."""
        return list(self._effects)

    @property
    def size_bytes(self) -> int:
        """What the effects that are remembered hold now."""
        return len(self._effects) * EFFECT_BYTES

    @property
    def limit_bytes(self) -> int:
        """What they hold at most."""
        return EFFECTS * EFFECT_BYTES

    def run(self, reason: str, *, aggressive: bool = False) -> list[Effect]:
        """Empty the caches, collect garbage, and give what is free back to the system.

        Args:
            reason: Why, as it is remembered.
            aggressive: Also collect what was frozen at the start, and empty caches of the interpreter.
        """
        done: list[Effect] = []
        if any(cache.can_release for cache in self._caches):
            done.append(self._measure("release caches", reason, self._release_caches))
        if aggressive:
            done.append(self._measure("empty the interpreter's caches", reason, _empty_interpreter))
            done.append(self._measure("collect, also what was frozen", reason, self._collector.collect_frozen))
        else:
            done.append(self._measure("collect", reason, self._collector.collect))
        done.append(self._measure("return to the system", reason, trim))
        return done

    def _release_caches(self) -> str:
        caches = [cache for cache in self._caches if cache.can_release]
        failures = [text for cache in caches if (text := cache.release())]
        return "; ".join([f"{len(caches) - len(failures)} released", *failures][:4])

    def _measure(self, action: str, reason: str, run: Callable[[], Any]) -> Effect:
        before, began = read_usage().resident, time.perf_counter()
        detail = run()
        seconds = time.perf_counter() - began
        text = f"{detail:,} objects" if isinstance(detail, int) and not isinstance(detail, bool) else str(detail)
        effect = Effect(action, reason, time.time(), before - read_usage().resident, seconds, text)
        self._effects.append(effect)
        return effect


def freed(effects: Iterable[Effect]) -> int:
    """Return what several actions freed together, in bytes."""
    return sum(effect.freed_bytes for effect in effects)


def trim() -> str:
    """Have malloc give free memory back to the system, where it is glibc's; says what it did."""
    # Why here: an import at the start of every process for what few of them ever do.
    import ctypes  # noqa: PLC0415 - as above

    with contextlib.suppress(OSError, AttributeError):
        returned = ctypes.CDLL(None).malloc_trim(0)
        return "malloc gave memory back" if returned else "malloc had nothing to give back"
    return "this malloc has no malloc_trim"


def _empty_interpreter() -> str:
    re.purge()
    linecache.clearcache()
    return "regular expressions, lines of source"
