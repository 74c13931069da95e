"""What all collators have in common: the way from items to a batch, and back.

items -> columns (one per leaf) -> who fits -> target shapes -> copies -> the nesting around them
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from carpool._core import Collation
from carpool._exceptions import CollateError

from ._checks import check_fill, check_lists, check_switch, checked_size
from ._copy import Target, constant
from ._fit import Column, Columns
from ._split import HowLists, Splitting
from ._tree import Path, flatten, rebuild, shown_to_core
from ._widths import Widths

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Collator", "Fill"]

Fill = Literal["zeros", "repeat"]


class Collator:
    """A collator of arrays; its kinds say what fits and what becomes of a column."""

    #: Whether `collate` takes a `size`.
    fills = True
    #: Whether batches have parts that are of the kind of each leaf.
    _of_one_kind = False
    _mask_dtype = "int64"
    _wants_notes = False
    _fast: Collation
    #: The arguments that it was made with: as it is shown, and pickled.
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made._made_with = args, kwargs
        return made

    def __init__(self, lists: HowLists, views: bool, fill: Fill) -> None:
        check_lists(lists)
        check_switch("views", views)
        check_fill(fill)
        self._splitting = Splitting(lists, views)
        self._fill = fill

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (type(self), *self._made_with)

    def __repr__(self) -> str:
        args, kwargs = self._made_with
        given = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{type(self).__name__}({', '.join(given)})"

    def collate(self, items: Sequence[Any], size: int | None = None) -> Any:
        """One batch of the items, in their kinds of array, dtypes and nesting.

        Args:
            items: one or more; each becomes one row.
            size: how many rows the batch has, if more than there are items. The rows beyond are zeros, or with
                fill="repeat" the last item's again.

        Raises:
            CollateError: items do not fit the others; `misfits` has an error for each. Without the items in
                it, the rest can be collated. Or, with no `misfits`, the options do not fit the items.
            ImportError: numpy or torch is needed and not installed.
            TypeError, ValueError: `size` is out of range.
        """
        items = items if type(items) is list else list(items)
        if size is None:
            size = len(items)
        elif checked_size("size", size) is not None and size < len(items):
            raise ValueError(f"size={size} has no room for {len(items)} items")
        elif self._fill == "repeat":
            items = items + items[-1:] * (size - len(items))
        made = self._fast.collate(items, size)
        if made is None or made is NotImplemented:
            return self._plainly(items, size, learn=made is None)
        return self._with_notes(items, made) if self._wants_notes else made

    def _plainly(self, items: list[Any], size: int, *, learn: bool) -> Any:
        """The batch, with every question asked; what is found out serves the fast way from now on."""
        if not items:
            raise CollateError("there are no items to collate")
        columns = Columns(items)
        self._fit(columns)
        columns.settle()
        batch = self._build(columns, size)
        if learn and columns.columns:
            self._learn(columns)
        return batch

    def _learn(self, columns: Columns) -> None:
        try:
            tree = shown_to_core(columns.like)
        except LookupError:
            return
        leaves, _ = flatten(columns.like)
        told = [(leaves[column.path], *self._told(columns, column)) for column in columns.columns]
        first = next(
            (column for column, leaf in zip(columns.columns, told, strict=True) if leaf[1] != []),
            None,
        )
        first = first or columns.columns[0]
        if any(column.kind != first.kind for column in columns.columns) and self._of_one_kind:
            return
        ones = tuple([constant(first, 1, dtype) for dtype in (self._mask_dtype, "int64", "int32")])
        self._fast.learn(tree, told, ones)

    def _told(self, columns: Columns, column: Column) -> tuple[list[int] | None, Any]:
        """The axes of a column that are padded (None: those whose lengths differ), and with what."""
        return [], None

    def _with_notes(self, items: list[Any], made: Any) -> Any:
        """What the fast way has made, where it tells of padding, too."""
        raise NotImplementedError

    def _fit(self, columns: Columns) -> None:
        """Puts out the items that do not fit."""
        raise NotImplementedError

    def _build(self, columns: Columns, size: int) -> Any:
        made = {column.path: self._batch_of(column, size) for column in columns.columns}
        return self._nested(columns, made)

    def _batch_of(self, column: Column, size: int) -> Any:
        """The batch of one column, of `size` rows."""
        raise NotImplementedError

    def _nested(self, columns: Columns, made: dict[Path, Any]) -> Any:
        return rebuild(columns.like, made)

    def split(self, output: Any, n: int, batch: Any = None) -> list[Any]:
        """The `n` rows of what a handler made of a batch, one for each item.

        An array, tensor or list is rows; a dict, tuple, named tuple or dataclass is heads, each with rows,
        nested at will. Rows of arrays are copies, unless views=True.

        Args:
            output: what the handler returned.
            n: how many items there were.
            batch: what `collate` returned, where lengths of it are needed.

        Raises:
            BatchLengthError: some part of `output` has not `n` rows.
        """
        return self._splitting.rows(output, n)


def fast(
    form: str,
    *,
    side: str = "right",
    widths: Widths | None = None,
    extras: tuple[str | None, str | None] = (None, None),
    joined: Any = None,
    notes: bool = False,
) -> Collation:
    """The fast way of a collator with these options."""
    widths = widths or Widths()
    return Collation(
        form,
        side=side,
        multiple_of=widths.multiple_of,
        max_length=widths.max_length,
        buckets=list(widths.buckets),
        truncate=widths.truncate,
        extras=extras,
        joined=joined,
        notes=notes,
    )


def stacked(column: Column, shape: tuple[int, ...], size: int) -> Any:
    """The rows of a column, all of one shape, in one array."""
    target = Target(column, (size, *shape))
    for at, value in enumerate(column.values):
        target.put(at, value, (), ())
    target.clear_from(len(column.leaves))
    return target.array


def _remake(kind: type[Collator], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Collator:
    return kind(*args, **kwargs)
