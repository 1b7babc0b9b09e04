"""What holds memory when it is no garbage: the large containers that modules name, and the kinds of objects there are.

A look takes from milliseconds to some tenths of a second with the number of objects, and stops the process meanwhile.
So it is taken once for each time that attempts to free memory were given up, or when somebody asks.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter, deque
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Entries of a container that are weighed, the rest counts as much in proportion.
_WEIGHED: Final = 64
#: Objects that are counted by kind, the rest counts in proportion.
_COUNTED: Final = 50_000
#: Containers below this are not named, bytes.
_WORTH_NAMING: Final = 262_144
_CONTAINERS: Final = (dict, list, set, tuple, frozenset, deque)


@dataclass(frozen=True, slots=True)
class Holder:
    """Something that holds memory, by an estimate.

    Attributes:
        name: Where it is (`shop.jobs.cache`), or which kind of object it is (`all objects of list`).
        count: Entries of a container, or objects of a kind.
        size_bytes: What it and its entries take.
    """

    name: str
    count: int
    size_bytes: int

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.name}: {self.size_bytes / 1_048_576:,.1f} MB in {self.count:,}"


def find_holders(most: int = 5) -> list[Holder]:
    """Return the largest containers that modules and their classes name, then the kinds of objects that take most."""
    return [*_named(most), *_kinds(most)]


def weigh(container: Any) -> int:
    """Estimate what a container and its entries take, in bytes.

    Example:
        >>> entries = [bytes(1_000) for _ in range(500)]
        >>> 500_000 < weigh(entries) < 600_000
        True
    """
    size = sys.getsizeof(container)
    count = len(container)
    if not count:
        return size
    if isinstance(container, dict):
        some: Iterable[Any] = chain.from_iterable(islice(container.items(), _WEIGHED))
    else:
        some = islice(container, _WEIGHED)
    weighed = sum(_size(entry) for entry in some)
    return size + weighed * count // min(count, _WEIGHED)


def _size(entry: Any) -> int:
    """Return the size of an entry, with what it holds itself if it is a container or an object."""
    size = sys.getsizeof(entry, 0)
    if isinstance(entry, _CONTAINERS):
        inner: Iterable[Any] = chain.from_iterable(islice(entry.items(), 8)) if isinstance(entry, dict) else entry
        weighed = sum(sys.getsizeof(one, 0) for one in islice(inner, 8))
        size += weighed * max(1, len(entry) // 8)
    elif type(getattr(entry, "__dict__", None)) is dict:
        size += sum(sys.getsizeof(one, 0) for one in islice(vars(entry).values(), 8))
    return size


def _named(most: int) -> list[Holder]:
    found: dict[int, Holder] = {}
    for module_name, module in list(sys.modules.items()):
        space = getattr(module, "__dict__", None)
        if module_name == __name__ or type(space) is not dict:
            continue
        for name, value in list(space.items()):
            _weigh_if_large(found, f"{module_name}.{name}", value)
            if isinstance(value, type) and value.__module__ == module_name:
                for inner, held in list(vars(value).items()):
                    _weigh_if_large(found, f"{module_name}.{name}.{inner}", held)
    return sorted(found.values(), key=lambda holder: holder.size_bytes, reverse=True)[:most]


def _weigh_if_large(found: dict[int, Holder], name: str, value: object) -> None:
    # Why the exact types: what only looks like a container may do anything when it is walked through.
    if type(value) not in _CONTAINERS or id(value) in found or name.endswith(".__dict__"):
        return
    try:
        size = weigh(value)
    except RuntimeError:
        # Another thread changed it meanwhile.
        return
    if size >= _WORTH_NAMING:
        found[id(value)] = Holder(name, len(value), size)  # type: ignore[arg-type]  # a container, as seen above


def _kinds(most: int) -> list[Holder]:
    objects = gc.get_objects()
    step = max(1, len(objects) // _COUNTED)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for one in objects[::step]:
        kind = type(one)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        counts[name] += step
        sizes[name] += step * (_leaves(one) if kind in _CONTAINERS else sys.getsizeof(one, 0))
    return [Holder(f"all objects of {name}", counts[name], size) for name, size in sizes.most_common(most)]


def _leaves(container: Any) -> int:
    """Return the size of a container with those of its entries that the collector does not know, such as bytes."""
    size = sys.getsizeof(container)
    count = len(container)
    try:
        some = list(islice(container.values() if isinstance(container, dict) else container, 16))
    except RuntimeError:
        return size
    weighed = sum(sys.getsizeof(one, 0) for one in some if not gc.is_tracked(one))
    return size + (weighed * count // len(some) if some else 0)
