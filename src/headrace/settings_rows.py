"""Settings as people and JSON see them: one row each, values in the unit of the variable, passwords masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.settings import MINIMUM, SETTINGS, source_of

if TYPE_CHECKING:
    from headrace.settings import Settings
    from headrace.settings_entry import Change, Source
    from headrace.settings_env import Shown


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as people see it: values in the unit of the variable, passwords masked."""

    name: str
    field: str
    value: Shown
    source: Source
    default: Shown
    unit: str
    bounds: str
    text: str
    change: Change

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return show_value(self.value, self.unit)


def show_value(value: Shown, unit: str = "") -> str:
    """Write a value of a row with its unit.

    Example:
        >>> show_value(30000, "ms"), show_value(2.0), show_value(None)
        ('30000 ms', '2', 'not set')
    """
    if value is None:
        return "not set"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value} {unit}" if unit else str(value)


def describe(settings: Settings) -> list[SettingRow]:
    """List every setting with its value, source, default, unit, bounds and meaning, passwords masked."""
    return [
        SettingRow(
            name=setting.variable,
            field=setting.field,
            value=setting.kind.show(getattr(settings, setting.field)),
            source=source_of(settings, setting),
            default=setting.kind.show(setting.default),
            unit=setting.kind.unit,
            bounds="0..REDIS_MAX_CONNECTIONS" if setting is MINIMUM else setting.kind.bounds,
            text=setting.text,
            change=setting.change,
        )
        for setting in SETTINGS
    ]
