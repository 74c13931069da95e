"""Items as they are: the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._checks import check_lists, check_switch
from ._split import HowLists, Splitting

__all__ = ["Lists"]


class Lists:
    """The items as a list; what a batcher does without `collate=`, but that a tuple or dict is heads.

    Args:
        lists: what a list that the handler returns is: "rows", one for each item, or "heads", each with rows.
        views: whether rows of arrays are views of the output instead of copies.

    Raises:
        TypeError, ValueError: an option is out of range.
    """

    def __init__(self, *, lists: HowLists = "rows", views: bool = False) -> None:
        check_lists(lists)
        check_switch("views", views)
        self._splitting = Splitting(lists, views)

    def collate(self, items: Sequence[Any]) -> list[Any]:
        """The items."""
        return list(items)

    def split(self, output: Any, n: int, batch: Any = None) -> list[Any]:
        """The rows of `output`; see `Stack.split`."""
        return self._splitting.rows(output, n)

    def __repr__(self) -> str:
        return "Lists()"
