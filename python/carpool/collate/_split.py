"""What a handler returned, as one row for each item.

An array or tensor is rows along axis 0, a list is rows. A dict, tuple, named tuple or dataclass is heads, each
with rows, nested at will: row i of each goes to item i, in the same nesting.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from carpool._exceptions import BatchLengthError
from carpool._handler.rows import rows as plain_rows

from ._tree import put_together

__all__ = ["Cut", "HowLists", "Splitting"]

HowLists = Literal["rows", "heads"]
#: From the path of a head and its array to the rows of it, padding cut off; None to leave it to the split.
Cut = Callable[[tuple[Any, ...], Any], "list[Any] | None"]


class Splitting(NamedTuple):
    """How outputs are split; see `Stack` for the options."""

    lists: HowLists = "rows"
    views: bool = False

    def rows(self, output: Any, n: int, cut: Cut | None = None) -> list[Any]:
        """The `n` rows of an output.

        Raises:
            BatchLengthError: some part of it has not `n` rows, or none at all.
        """
        if output is None:
            raise BatchLengthError(f"the handler returned None; it must return {n} rows")
        return self._of(output, n, (), cut)

    def _of(self, output: Any, n: int, path: tuple[Any, ...], cut: Cut | None) -> list[Any]:
        if output is None:
            return [None] * n
        if is_array(output):
            made = None if cut is None else cut(path, output)
            return self._of_array(output, n, path) if made is None else made
        heads = self._heads(output)
        if heads is None:
            rows = plain_rows(output, n, _named(path))
            return rows if self.views else [_own(row) for row in rows]
        kind, parts = heads
        if not parts:
            raise BatchLengthError(f"{_named(path)}: the handler returned an empty {kind.__name__}")
        columns = [self._of(part, n, (*path, key), cut) for key, part in parts]
        keys = [key for key, _ in parts]
        if kind is dict:
            return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
        if kind in (tuple, list):
            return [kind(row) for row in zip(*columns, strict=True)]
        return [
            put_together(kind, dict(zip(keys, row, strict=True)))
            for row in zip(*columns, strict=True)
        ]

    def _heads(self, output: Any) -> tuple[Any, list[tuple[Any, Any]]] | None:
        if isinstance(output, Mapping):
            return dict, list(output.items())
        if isinstance(output, tuple):
            names = getattr(type(output), "_fields", None) or range(len(output))
            return type(output), list(zip(names, output, strict=True))
        if isinstance(output, list):
            return (list, list(enumerate(output))) if self.lists == "heads" else None
        if dataclasses.is_dataclass(output) and not isinstance(output, type):
            fields = [one.name for one in dataclasses.fields(output) if one.init]
            return type(output), [(name, getattr(output, name)) for name in fields]
        return None

    def _of_array(self, output: Any, n: int, path: tuple[Any, ...]) -> list[Any]:
        found = len(output) if output.ndim else None
        if found != n:
            raise BatchLengthError(
                f"{_named(path)}: the handler returned "
                f"{'a scalar' if found is None else f'{found} rows'} for a batch of {n}"
            )
        return self.own(output)

    def own(self, array: Any) -> list[Any]:
        """The rows of an array or tensor: copies, which do not keep the batch alive, or views."""
        if hasattr(array, "unbind"):
            if self.views:
                return list(array.unbind(0))
            # What a graph of gradients keeps, is more than the batch.
            return [row.clone() for row in array.detach().unbind(0)]
        return list(array) if self.views else [_copied(row) for row in array]

    def apart(self, row: Any) -> Any:
        """One row, in memory of its own unless views are wished for."""
        if self.views:
            return row
        return row.detach().clone() if hasattr(row, "clone") else _copied(row)


def _copied(row: Any) -> Any:
    """A row of an array, apart from it."""
    # Rows of a flat array are scalars or objects already, but for records, which are views.
    numpy = sys.modules["numpy"]
    return row.copy() if isinstance(row, (numpy.ndarray, numpy.void)) else row


def _own(row: Any) -> Any:
    """A row that came in a list: copied where it is a part of something larger, which it would keep."""
    if not is_array(row):
        return row
    if not hasattr(row, "untyped_storage"):
        return row if row.base is None else row.copy()
    if row.layout is not sys.modules["torch"].strided:
        return row
    is_part = row.untyped_storage().nbytes() > row.nbytes
    return row.detach().clone() if is_part or row.requires_grad else row


def is_array(value: Any) -> bool:
    """Whether it is a numpy array or a torch tensor; imports neither."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    return (numpy is not None and isinstance(value, numpy.ndarray)) or (
        torch is not None and isinstance(value, torch.Tensor)
    )


def _named(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "the output"
