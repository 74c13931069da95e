"""Rows copied into one array or tensor with numpy's and torch's own means.

The plain way, for everything that has no faster one: other devices, rare dtypes, batches that are seen for the
first time. It is also what the fast way is checked against.
"""

from __future__ import annotations

import math
from typing import Any

from ._fit import Column, described
from ._packages import numpy, torch

__all__ = ["Target", "constant", "held"]


class Target:
    """The array that rows are copied into; of a column's kind, dtype and device."""

    def __init__(self, column: Column, shape: tuple[int, ...], value: Any = None) -> None:
        self.array = _made(column, shape, value)
        self._is_tensor = column.kind != "array"

    def put(self, row: int, value: Any, to: tuple[slice, ...], of: tuple[slice, ...]) -> None:
        """Copies `value[of]` to `array[row][to]`."""
        where = (row, *to)
        if self._is_tensor:
            self.array[where].copy_(value[of])
        else:
            self.array[where] = value[of]

    def clear_from(self, row: int) -> None:
        """Zeros in the rows from here on."""
        if row < len(self.array):
            if self._is_tensor:
                self.array[row:].zero_()
            else:
                self.array[row:] = numpy().zeros((), self.array.dtype)


def _made(column: Column, shape: tuple[int, ...], value: Any) -> Any:
    if column.kind == "array":
        np = numpy()
        made = np.empty(shape, column.dtype)
        if value is not None:
            made[...] = value
        return made
    tensors = torch()
    device = next(iter(column.leaves.values())).value.device
    made = tensors.empty(shape, dtype=column.dtype, device=device)
    if value is not None:
        made.copy_(value.to(device).expand(shape))
    return made


def held(value: Any, column: Column) -> Any:
    """A pad value in the dtype of a column, as a scalar array or tensor.

    Raises:
        ValueError: the dtype cannot hold it.
    """
    if hasattr(value, "item"):
        value = value.item()
    try:
        if column.kind == "array":
            return _held_in_array(value, column.dtype)
        return _held_in_tensor(value, column.dtype)
    except (TypeError, ValueError, OverflowError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"{described(column.path)}: the pad value {value!r} cannot be held by {column.dtype}"
        ) from error


def _held_in_array(value: Any, dtype: Any) -> Any:
    np = numpy()
    inexact = dtype.kind in "fcV"
    if isinstance(value, complex) and not inexact:
        raise ValueError
    with np.errstate(all="ignore"):
        made = np.asarray(value).astype(dtype) if dtype.kind != "f" else dtype.type(value)
    most = float(np.finfo(dtype).max) if dtype.kind in "fc" else math.inf
    if made.ndim or not _came_through(value, made.item(), inexact, most):
        raise ValueError
    return np.asarray(made)


def _held_in_tensor(value: Any, dtype: Any) -> Any:
    tensors = torch()
    inexact = dtype.is_floating_point or dtype.is_complex
    made = tensors.tensor(value, dtype=dtype)
    if made.ndim or not _came_through(
        value, made.item(), inexact, tensors.finfo(dtype).max if inexact else 0
    ):
        raise ValueError
    return made


def _came_through(value: Any, made: Any, inexact: bool, most: float) -> bool:
    """Whether it is the same number still; in a floating dtype, rounded, but not beyond its largest."""
    if value == made:
        return True
    if value != value:
        return bool(made != made)
    if not inexact:
        return False
    parts = [(value.real, made.real), (value.imag, made.imag)]
    return all(one == other or (abs(one) <= most and math.isfinite(other)) for one, other in parts)


def constant(column: Column, rows: Any, dtype: str) -> Any:
    """Numbers from a numpy-like nested list or array, beside a column: of its kind, on its device.

    Raises:
        ValueError: there is no such dtype in that kind.
    """
    if column.kind == "array":
        np = numpy()
        try:
            return np.array(rows, dtype=dtype)
        except TypeError as error:
            raise ValueError(f"numpy has no dtype {dtype!r}") from error
    tensors = torch()
    kind = getattr(tensors, dtype, None)
    if not isinstance(kind, tensors.dtype):
        raise ValueError(f"torch has no dtype {dtype!r}")
    device = next(iter(column.leaves.values())).value.device
    return tensors.tensor(rows, dtype=kind, device=device)
