"""Ray Serve's checks and errors, with its texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from typing import Any

from carpool.compat._front import the_class

__all__ = ["RayServeException"]


class RayServeException(Exception):
    """A batch handler did not keep to the rules. Where Ray is loaded, what is raised is one of Ray's, too."""


def rule_broken(text: str) -> RayServeException:
    """The error, of Ray's class as well if the program has loaded that."""
    theirs = the_class("ray.serve.exceptions", "RayServeException")
    if theirs is None or issubclass(RayServeException, theirs):
        return RayServeException(text)
    if theirs not in _both:
        _both[theirs] = type("RayServeException", (RayServeException, theirs), {})
    both: RayServeException = _both[theirs](text)
    return both


_both: dict[Any, Any] = {}


def check_rows(results: Any, count: int) -> None:
    """
    Raises:
        RayServeException: `results` is no list of `count` results.
    """
    kind = type(results)
    unfit = isinstance(results, (str, bytes, bytearray, Mapping, Set))
    if unfit or not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__")):
        raise rule_broken(
            f"Batched function must return a list with a result for each of its {count} inputs, "
            f"not {'None' if results is None else f'a {kind.__name__}'}."
        )
    if len(results) != count:
        raise rule_broken(
            "Batched function doesn't preserve batch size. "
            f"The input list has length {count} but the returned list has length {len(results)}."
        )


def size_of(value: Any) -> int:
    """`max_batch_size` as an int.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than 1.
    """
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise TypeError(f"max_batch_size must be integer >= 1, got {value}")
    if value < 1:
        raise ValueError(f"max_batch_size must be an integer >= 1, got {value}")
    return int(value)


def seconds_of(value: Any) -> float:
    """`batch_wait_timeout_s`, checked.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"batch_wait_timeout_s must be a float >= 0, got {value}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"batch_wait_timeout_s must be a float >= 0, got {value}")
    return value


def check_batches(value: Any) -> None:
    """
    Raises:
        TypeError: `max_concurrent_batches` is no int from 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError(f"max_concurrent_batches must be an integer >= 1, got {value}")


def check_size_fn(value: Callable[[list[Any]], int] | None) -> None:
    """
    Raises:
        TypeError: `batch_size_fn` cannot be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"batch_size_fn must be a callable or None, got {type(value)}")
