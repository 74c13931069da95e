"""The same nesting around other leaves: what is no dict, list, tuple or dataclass is a leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["mapped"]


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change(leaf)` in place of each leaf. Mappings become dicts."""
    if isinstance(value, Mapping):
        return {key: mapped(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [mapped(one, change) for one in value]
    if isinstance(value, tuple):
        made = [mapped(one, change) for one in value]
        make = getattr(type(value), "_make", tuple)
        return make(made)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [one.name for one in dataclasses.fields(value) if one.init]
        return dataclasses.replace(
            value, **{name: mapped(getattr(value, name), change) for name in fields}
        )
    return change(value)
