"""Nested items: the arrays in them by path, and the same nesting again around what they become.

Dicts (any mapping), tuples, named tuples and dataclasses nest; everything else is a leaf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

__all__ = ["Path", "Structure", "flatten", "name_of", "rebuild", "structure_of"]

#: The keys, places and fields that lead to a leaf; () for a bare item.
Path = tuple[Hashable, ...]
#: Which paths lead to leaves, and what is nested on the way: equal where items have the same form.
Structure = tuple[frozenset[Path], frozenset[tuple[Path, Any]]]


def _nested(value: Any) -> tuple[Any, list[tuple[Hashable, Any]]] | None:
    """The kind of a container and what is in it by key; None for a leaf."""
    if isinstance(value, Mapping):
        return dict, list(value.items())
    if isinstance(value, tuple):
        names = getattr(type(value), "_fields", None)
        return type(value), list(zip(names or range(len(value)), value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [one.name for one in dataclasses.fields(value) if one.init]
        return type(value), [(name, getattr(value, name)) for name in fields]
    return None


def flatten(item: Any) -> tuple[dict[Path, Any], dict[Path, Any]]:
    """The leaves of an item by path, in order, and the kinds of its containers by path."""
    leaves: dict[Path, Any] = {}
    containers: dict[Path, Any] = {}
    _flatten(item, (), leaves, containers)
    return leaves, containers


# Not nested functions: one that calls itself is a circle of references, and would keep arrays alive with it.
def _flatten(value: Any, path: Path, leaves: dict[Path, Any], containers: dict[Path, Any]) -> None:
    nested = _nested(value)
    if nested is None:
        leaves[path] = value
        return
    containers[path] = nested[0]
    for key, child in nested[1]:
        _flatten(child, (*path, key), leaves, containers)


def structure_of(leaves: dict[Path, Any], containers: dict[Path, Any]) -> Structure:
    """What items of the same form have in common, whatever the order of their keys."""
    return frozenset(leaves), frozenset(containers.items())


def rebuild(like: Any, made: Mapping[Path, Any], path: Path = ()) -> Any:
    """The nesting of the item `like` around what was made of each of its leaves."""
    nested = _nested(like)
    if nested is None:
        return made[path]
    kind, children = nested
    return put_together(kind, {key: rebuild(child, made, (*path, key)) for key, child in children})


def shown_to_core(like: Any) -> Any:
    """The nesting of an item, as `Collation.learn` takes it; None for a leaf.

    Raises:
        LookupError: items of this kind go the plain way.
    """
    nested = _nested(like)
    if nested is None:
        return None
    kind, children = nested
    if kind is dict:
        form = "dict" if type(like) is dict else ""
    elif kind is tuple:
        form = "tuple"
    elif issubclass(kind, tuple):
        form = "named" if hasattr(kind, "_fields") else ""
    else:
        form = "fields"
    if not form:
        raise LookupError(kind)
    keys = [key for key, _ in children]
    return form, kind, keys, [shown_to_core(child) for _, child in children]


def put_together(kind: Any, values: dict[Any, Any]) -> Any:
    """A container of `kind` of values by key, in order."""
    if kind is dict:
        return values
    if hasattr(kind, "_make"):
        return kind._make(values.values())
    if issubclass(kind, tuple):
        return kind(values.values())
    return kind(**values)


def name_of(path: Path) -> str:
    """How options and errors call a leaf: "a.b"; "" for a bare item."""
    return ".".join(map(str, path))
