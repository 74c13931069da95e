"""What the options of collators may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "check_choice",
    "check_fill",
    "check_lists",
    "check_name",
    "check_switch",
    "checked_axes",
    "checked_buckets",
    "checked_names",
    "checked_size",
]


def check_switch(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """One of a few."""
    if not any(value is one or value == one for one in allowed):
        listed = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {listed}, not {value!r}")


def check_lists(value: object) -> None:
    """The option `lists`."""
    check_choice("lists", value, ("rows", "heads"))


def check_fill(value: object) -> None:
    """The option `fill`."""
    check_choice("fill", value, ("zeros", "repeat"))


def check_name(name: str, value: object) -> None:
    """The name of a key that is added, or None."""
    if value is not None and not (isinstance(value, str) and value):
        raise TypeError(f"{name} must be the name of a key, or None, not {value!r}")


def checked_size(name: str, value: Any) -> int | None:
    """A positive int, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value


def checked_buckets(value: Any) -> tuple[int, ...]:
    """Widths, in order and each once; () for none."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"buckets must be widths, such as (64, 128), or None, not {value!r}")
    for one in value:
        if checked_size("each of buckets", one) is None:
            raise TypeError("each of buckets must be an int, not None")
    return tuple(sorted(set(value)))


def checked_names(name: str, value: Any) -> bool | tuple[str, ...]:
    """True, False, or names of heads."""
    if isinstance(value, (bool, str)):
        return value if isinstance(value, bool) else (value,)
    if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{name} must be True, False or names of heads, not {value!r}")
    return tuple(value)


def checked_axes(value: Any) -> Any:
    """None, a tuple of axes, or a dict of such by key."""
    if isinstance(value, Mapping):
        made = {str(key): checked_axes(one) for key, one in value.items()}
        if None in made.values():
            raise TypeError(f"axis must name an axis for each of its keys, not {value!r}")
        return made
    if value is None:
        return None
    axes = value if isinstance(value, (tuple, list)) else (value,)
    for one in axes:
        if isinstance(one, bool) or not isinstance(one, int):
            raise TypeError(f"axis must be an int, several, or a dict of these, not {value!r}")
    return tuple(axes)
