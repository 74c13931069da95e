"""The settings of `batched`, checked when a function is decorated, by the names they have there."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

__all__ = ["check_cache", "checked", "whole"]


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, those that all processors have as plain numbers.

    Raises:
        TypeError, ValueError: one of these is of the wrong type or out of range.
    """
    size = whole("batch_size", settings["batch_size"])
    wait = _number("timeout_ms", "a number of milliseconds from 0", settings["timeout_ms"])
    if math.isnan(wait) or wait < 0:
        raise ValueError(f"timeout_ms must be a number of milliseconds from 0, not {wait!r}")
    _number("small_batch_threshold", "a number of items", settings["small_batch_threshold"])
    return {**settings, "batch_size": size, "timeout_ms": wait}


def whole(name: str, value: Any) -> int:
    """A setting as an int.

    Raises:
        TypeError, ValueError: it is no whole number from 1.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be a whole number from 1, not {value!r}")
    if number < 1:
        raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
    return number


def check_cache(cache: Any) -> None:
    """
    Raises:
        TypeError: it is no cache, nor None.
    """
    if cache is not None and not all(
        callable(getattr(cache, name, None)) for name in ("get", "set", "stats")
    ):
        raise TypeError(
            f"cache must have the methods of AsyncCache (get, set, clear, stats), or be None, not {cache!r}"
        )


def _number(name: str, what: str, value: Any) -> float:
    try:
        if not isinstance(value, (bool, str, bytes)):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name} must be {what}, not {value!r}")
