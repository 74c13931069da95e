"""Rows of equal shapes."""

from __future__ import annotations

from typing import Any

from ._collator import Collator, Fill, fast, stacked
from ._fit import Column, Columns
from ._split import HowLists

__all__ = ["Stack"]


class Stack(Collator):
    """Stacks items of equal shapes along a new first axis.

    ```python
    import numpy as np
    from carpool.collate import Stack

    batch = Stack().collate([{"x": np.array([1, 2])}, {"x": np.array([3, 4])}])
    assert batch["x"].shape == (2, 2) and batch["x"].dtype == np.int64
    rows = Stack().split({"sum": batch["x"].sum(axis=1)}, 2)
    assert [row["sum"] for row in rows] == [3, 7]
    ```

    Args:
        lists: what a list that the handler returns is: "rows", one for each item, or "heads", each with rows.
        views: whether rows of arrays are views of the output instead of copies. A view that is kept keeps
            the whole output.
        fill: what rows beyond the items are, where a batch has more: "zeros", or "repeat" the last item.

    Raises:
        TypeError, ValueError: an option is out of range.
    """

    def __init__(
        self, *, lists: HowLists = "rows", views: bool = False, fill: Fill = "zeros"
    ) -> None:
        super().__init__(lists, views, fill)
        self._fast = fast("stack")

    def _fit(self, columns: Columns) -> None:
        for column in columns.columns:
            columns.ask(column, lambda leaf: leaf.shape, "shape")

    def _batch_of(self, column: Column, size: int) -> Any:
        return stacked(column, column.shapes[0], size)
