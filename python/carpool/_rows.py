"""What a handler returned, as one row per request."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Set
from typing import Any

from ._exceptions import BatchLengthError

__all__ = ["rows"]


def rows(results: Any, count: int, name: str) -> list[Any]:
    """The `count` rows of `results`.

    A list or another sized sequence is its rows. Arrays and tensors are rows along axis 0, each
    copied: a row that somebody keeps must not keep the whole batch alive.

    Raises:
        BatchLengthError: it has no rows (None, a str, a dict, a generator, a scalar), or not `count`.
    """
    if _has_no_rows(results):
        raise BatchLengthError(
            f"{name}: the handler returned {_described(results)}; "
            f"it must return a list of {count} rows, one per request"
        )
    found = len(results)
    if found != count:
        raise BatchLengthError(
            f"{name}: the handler returned {found} rows for a batch of {count} requests"
        )
    return _split(results)


def _has_no_rows(results: Any) -> bool:
    if isinstance(results, (str, bytes, bytearray, Mapping, Set)):
        return True
    if getattr(results, "ndim", 1) == 0:
        return True
    kind = type(results)
    return not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__"))


def _split(results: Any) -> list[Any]:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and isinstance(results, torch.Tensor):
        return [row.clone() for row in results.unbind(0)]
    if numpy is not None and isinstance(results, numpy.ndarray):
        # Rows of a flat array are scalars already, unless they are objects.
        return [row.copy() if isinstance(row, numpy.ndarray) else row for row in results]
    # Positions, where indexing means labels.
    by_position = getattr(results, "iloc", results)
    if by_position is not results:
        return [by_position[index] for index in range(len(results))]
    return list(results)


def _described(results: Any) -> str:
    return "None" if results is None else f"a {type(results).__name__}"
