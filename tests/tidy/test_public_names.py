"""`headrace.__all__` is sorted, and every name in it can be imported."""

from __future__ import annotations

from types import ModuleType

import pytest

import headrace


def problems(module: ModuleType) -> list[str]:
    names: list[str] = list(getattr(module, "__all__", ()))
    found = [f"{name}: in __all__, but not in the module" for name in names if not hasattr(module, name)]
    if names != sorted(set(names)):
        found.append(f"__all__ is not sorted, or names one twice; it should read {sorted(set(names))}")
    public = {name for name, value in vars(module).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    found += [
        f"{name}: public in the module, but not in __all__" for name in sorted(public - set(names) - {"annotations"})
    ]
    return found


def test_the_public_names_are_sorted_and_there() -> None:
    found = problems(headrace)

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["gone"], "gone: in __all__, but not in the module"),
        (["first", "Second"], "should read ['Second', 'first']"),
        (["first", "first"], "names one twice"),
        ([], "first: public in the module, but not in __all__"),
    ],
)
def test_a_wrong_list_is_found(names: list[str], complaint: str) -> None:
    module = ModuleType("sample")
    vars(module).update(__all__=names, first=1, Second=2)

    assert complaint in "\n".join(problems(module))
