"""What a handler returned, as one row per request."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Set
from typing import Any

from carpool._exceptions import BatchLengthError

__all__ = ["rows"]


def rows(results: Any, count: int, name: str, requests: int | None = None) -> list[Any]:
    """The `count` rows of `results`, for a batch of `requests` that was filled up to `count`.

    A list or another sized sequence is its rows. Arrays and tensors are rows along axis 0, each
    copied: a row that somebody keeps must not keep the whole batch alive.

    Raises:
        BatchLengthError: it has no rows (None, a str, a dict, a generator, a scalar), or not `count`.
    """
    padded = requests is not None and requests != count
    if _has_no_rows(results):
        raise BatchLengthError(
            f"{name}: the handler returned {_described(results)}; "
            f"it must return a list of {count} rows, one per {'item' if padded else 'request'}"
        )
    found = len(results)
    if found != count:
        raise BatchLengthError(
            f"{name}: the handler returned {found} rows for {_asked(count, requests)}"
        )
    rows = _split(results, count)
    # A sequence that says one length and has another.
    if len(rows) != count:
        raise BatchLengthError(
            f"{name}: the handler returned {len(rows)} rows for {_asked(count, requests)}"
        )
    return rows


def _asked(count: int, requests: int | None) -> str:
    if requests is None or requests == count:
        return f"a batch of {count} requests"
    return f"a batch of {requests} requests, which had {count} items (see batch_sizes)"


def _has_no_rows(results: Any) -> bool:
    if isinstance(results, (str, bytes, bytearray, Mapping, Set)):
        return True
    if getattr(results, "ndim", 1) == 0:
        return True
    kind = type(results)
    return not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__"))


def _split(results: Any, count: int) -> list[Any]:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and isinstance(results, torch.Tensor):
        return [row.clone() for row in results.unbind(0)]
    if numpy is not None and isinstance(results, numpy.ndarray):
        # Rows of a flat array are scalars already, but for records.
        views = (numpy.ndarray, numpy.void)
        return [row.copy() if isinstance(row, views) else row for row in results]
    if isinstance(results, (list, tuple)):
        return list(results)
    # By place and no further: iterating asks some kinds for labels, and others without end.
    by_place = getattr(results, "iloc", results)
    return [by_place[place] for place in range(count)]


def _described(results: Any) -> str:
    return "None" if results is None else f"a {type(results).__name__}"
