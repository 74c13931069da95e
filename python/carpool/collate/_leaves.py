"""What one leaf of an item is to a batch: an array or a tensor, with its dtype exactly as it came.

| leaf | becomes |
|---|---|
| numpy array or scalar | the array |
| torch tensor, on any device | the tensor |
| bool, int, float, complex | an array of rank 0: bool, int64, float64, complex128 |
| list of numbers, nested evenly | an array of one of these dtypes; an empty one is of any dtype |
| anything with DLPack | an array; a tensor where it is not in main memory, or of numbers that only torch has |
| anything with the buffer protocol | an array |
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ._packages import loaded_torch, numpy, torch

__all__ = ["ANY", "Leaf", "Unfit", "read"]

#: The dtype of an empty list.
ANY: Any = None


#: How libraries refuse what comes through DLPack.
_REFUSALS = (BufferError, RuntimeError, TypeError, ValueError)


class Unfit(Exception):
    """A leaf that nothing can be made of; the text says why."""


class Leaf(NamedTuple):
    """One leaf, read."""

    #: "array", or "tensor on" its device.
    kind: str
    dtype: Any
    shape: tuple[int, ...]
    #: The array or tensor; shares the memory of what it was read from.
    value: Any


def read(value: Any) -> Leaf:
    """One leaf of an item.

    Raises:
        Unfit: it is nothing that rows are made of.
        ImportError: it becomes an array, and numpy is not installed.
    """
    tensors = loaded_torch()
    if tensors is not None and isinstance(value, tensors.Tensor):
        return _tensor(tensors, value)
    kind = type(value)
    if isinstance(value, (str, dict, set, frozenset)) or value is None:
        raise Unfit(f"a {kind.__name__} is no array, tensor, number or list of numbers")
    np = numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        return _array(np, value)
    if isinstance(value, (bool, int, float, complex)):
        return _array(np, _number(np, value))
    if isinstance(value, list):
        return _list(np, value)
    if hasattr(kind, "__dlpack__"):
        return _dlpack(np, value)
    try:
        view = memoryview(value)
    except TypeError:
        raise Unfit(
            f"a {kind.__name__} is no array, tensor, number or list of numbers, "
            f"and offers neither DLPack nor a buffer"
        ) from None
    return _array(np, np.asarray(view))


def _array(np: Any, value: Any) -> Leaf:
    if isinstance(value, np.ma.MaskedArray):
        raise Unfit("a masked array would lose its mask")
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise Unfit(f"an array of dtype {array.dtype} holds objects, not numbers")
    return Leaf("array", array.dtype, array.shape, array)


def _tensor(tensors: Any, value: Any) -> Leaf:
    if value.layout is not tensors.strided or value.is_quantized or value.is_nested:
        raise Unfit(f"a tensor of layout {value.layout} cannot be a row; only dense ones can")
    tensor = value.detach()
    return Leaf(f"tensor on {tensor.device}", tensor.dtype, tuple(tensor.shape), tensor)


def _dlpack(np: Any, value: Any) -> Leaf:
    refused: Exception | None = None
    if value.__dlpack_device__()[0] == 1:
        try:
            return _array(np, np.from_dlpack(value))
        except _REFUSALS as error:
            refused = error
    # Also of numbers that numpy has not: bfloat16, and those of 8 bits.
    tensors = torch() if refused is None else loaded_torch()
    if tensors is not None:
        try:
            return _tensor(tensors, tensors.from_dlpack(value))
        except _REFUSALS as error:
            refused = refused or error
    raise Unfit(f"a {type(value).__name__} cannot be read through DLPack: {refused}") from refused


_DTYPES = {bool: "bool", int: "int64", float: "float64", complex: "complex128"}


def _number(np: Any, value: Any) -> Any:
    kind = next(kind for kind in _DTYPES if isinstance(value, kind))
    try:
        return np.array(value, dtype=_DTYPES[kind])
    except OverflowError:
        raise Unfit(f"{value} does not fit into int64") from None


def _list(np: Any, value: list[Any]) -> Leaf:
    flat: list[Any] = []
    shape = _even(value, flat)
    kinds = set(map(type, flat))
    if not kinds:
        return Leaf("array", ANY, shape, np.empty(shape))
    for kind in kinds - _DTYPES.keys():
        if issubclass(kind, np.generic) and len(kinds) == 1:
            return _array(np, np.array(flat).reshape(shape))
        raise Unfit(f"a list that holds a {kind.__name__} is no list of numbers")
    if kinds == {int, float} and all(float(one) == one for one in flat):
        kinds = {float}
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise Unfit(f"a list of several types of number ({names}) has no one dtype")
    try:
        return _array(np, np.array(flat, dtype=_DTYPES[kinds.pop()]).reshape(shape))
    except OverflowError:
        raise Unfit("a number of the list does not fit into int64") from None


def _even(value: list[Any], flat: list[Any]) -> tuple[int, ...]:
    """The shape of nested lists, whose numbers go to `flat`."""
    nested = [isinstance(one, list) for one in value]
    if not any(nested):
        flat.extend(value)
        return (len(value),)
    shapes = {_even(one, flat) if isinstance(one, list) else None for one in value}
    if len(shapes) > 1:
        raise Unfit("its lists are of different lengths or depths")
    inner = shapes.pop()
    assert inner is not None
    return (len(value), *inner)
