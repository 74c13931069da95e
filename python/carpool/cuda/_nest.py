"""The same nesting around other leaves: what is no dict, list, tuple or dataclass is a leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["leaves", "mapped"]


def mapped(
    value: Any, change: Callable[[Any], Any], *, lists: Callable[[Any], Any] | None = None
) -> Any:
    """`value` with `change(leaf)` in place of each leaf; with `lists`, `lists(one)` in place of each list.

    Mappings become dicts.
    """
    if isinstance(value, Mapping):
        return {key: mapped(one, change, lists=lists) for key, one in value.items()}
    if isinstance(value, list):
        if lists is not None:
            return lists(value)
        return [mapped(one, change) for one in value]
    if isinstance(value, tuple):
        made = [mapped(one, change, lists=lists) for one in value]
        make = getattr(type(value), "_make", type(value))
        return make(made)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [one.name for one in dataclasses.fields(value) if one.init]
        return dataclasses.replace(
            value, **{name: mapped(getattr(value, name), change, lists=lists) for name in fields}
        )
    return change(value)


def leaves(value: Any) -> Iterator[Any]:
    """The leaves in order; makes nothing of anybody's classes."""
    children: Any
    if isinstance(value, Mapping):
        children = value.values()
    elif isinstance(value, (list, tuple)):
        children = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        children = [getattr(value, one.name) for one in dataclasses.fields(value) if one.init]
    else:
        yield value
        return
    for child in children:
        yield from leaves(child)
