"""Rows of different lengths, filled up to the same."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from carpool._core import note_padding
from carpool._exceptions import BatchLengthError, CollateError

from ._checks import (
    check_choice,
    check_name,
    checked_axes,
    checked_buckets,
    checked_names,
    checked_size,
)
from ._collator import Collator, Fill, fast, stacked
from ._copy import Target, constant, held
from ._fit import Column, Columns, described
from ._split import HowLists
from ._tree import Path, flatten, name_of
from ._widths import Side, Widths

__all__ = ["Pad"]


class Padded(NamedTuple):
    """What was padded of one leaf."""

    axes: tuple[int, ...]
    widths: tuple[int, ...]
    #: By row, what of each of the axes is the item's.
    lengths: list[tuple[int, ...]]


#: What was padded by the path of a leaf; None for one that was stacked.
Notes = dict[Path, "Padded | None"]


class Pad(Collator):
    """Pads items to the longest of the batch and stacks them along a new first axis.

    ```python
    import numpy as np
    from carpool.collate import Pad

    pad = Pad({"ids": 0}, mask="mask", multiple_of=4)
    batch = pad.collate([{"ids": np.array([7, 8, 9])}, {"ids": np.array([5])}])
    assert batch["ids"].tolist() == [[7, 8, 9, 0], [5, 0, 0, 0]]
    assert batch["mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    ```

    Items are as for `Stack`. Nested keys are written "a.b".

    Args:
        value: what padding is filled with: one number, or a dict of numbers by key. The dtype of the items has to
            be able to hold it; a floating dtype may round it.
        side: where padding goes, "right" or "left".
        axis: which axes of an item are padded: an index, several, or a dict of these by key (keys that are not
            in it are stacked). By default the only axis of items that have one, and every axis whose
            lengths differ in a batch of items that have more.
        multiple_of: padded axes are rounded up to a multiple of this, though not beyond `max_length`.
        max_length: the longest a padded axis may be. A longer item fails with CollateError, or is cut with
        truncate: "right" cuts the end off, "left" the beginning.
        buckets: the widths that padded axes may have, for compiled shapes; a longer item fails.
        mask: the name of a key that is added: 1 where the first padded key holds the item's, 0 where padding,
            (n, width) for one padded axis. Where items are no dicts the batch becomes `(values, mask)`.
        mask_dtype: its dtype, by name.
        lengths: the name of a key that is added: int64, (n,), the lengths before padding of the first padded key;
            (n, axes) for several axes. Where items are no dicts it is appended as the mask is.
        unpad: whether `split` cuts the padding off again: False, True for every array that the handler
            returns, or the names of the heads. Such an array has the padded axes where the batch has them.
            A head is measured by the input of the same name, else by the first padded one.
        lists, views, fill: as in `Stack`.

    Raises:
        TypeError, ValueError: an option is out of range.
    """

    def __init__(
        self,
        value: float | complex | Mapping[str, float | complex] = 0,
        *,
        side: Side = "right",
        axis: int | Sequence[int] | Mapping[str, int | Sequence[int]] | None = None,
        multiple_of: int | None = None,
        max_length: int | None = None,
        truncate: Side | None = None,
        buckets: Sequence[int] | None = None,
        mask: str | None = None,
        mask_dtype: str = "int64",
        lengths: str | None = None,
        unpad: bool | str | Sequence[str] = False,
        lists: HowLists = "rows",
        views: bool = False,
        fill: Fill = "zeros",
    ) -> None:
        super().__init__(lists, views, fill)
        check_choice("side", side, ("right", "left"))
        check_choice("truncate", truncate, ("right", "left", None))
        check_name("mask", mask)
        check_name("lengths", lengths)
        if mask is not None and mask == lengths:
            raise ValueError(f"mask and lengths are both called {mask!r}")
        multiple = checked_size("multiple_of", multiple_of)
        longest = checked_size("max_length", max_length)
        if multiple is not None and buckets is not None:
            raise ValueError("the width is one of buckets, or a multiple_of: give one of them")
        if truncate is not None and longest is None:
            raise ValueError(f"truncate={truncate!r} cuts to max_length: give that, too")
        self._value: Any = value
        if isinstance(value, Mapping):
            self._value = {name_of((key,)): one for key, one in value.items()}
        self._side = side
        self._axes = checked_axes(axis)
        self._widths = Widths(multiple or 1, longest, checked_buckets(buckets), truncate)
        self._mask = mask
        self._mask_dtype = _dtype_name(mask_dtype)
        self._lengths = lengths
        self._unpad = checked_names("unpad", unpad)
        self._wants_notes = bool(self._unpad)
        self._fast = fast(
            "pad",
            side=side,
            widths=self._widths,
            extras=(mask, lengths),
            notes=self._wants_notes,
        )
        #: What was padded of batches that are alive, by the id of each of their arrays.
        self._notes: dict[int, tuple[weakref.ref[Any], Notes]] = {}

    # ------------------------------------------------------------------------------- collating

    def _fit(self, columns: Columns) -> None:
        for column in columns.columns:
            if not column.leaves:
                continue
            axes = self._axes_of(columns, column)
            if axes is not None:
                fixed = [axis for axis in range(column.rank) if axis not in axes]
                columns.ask(
                    column,
                    lambda leaf, fixed=fixed: tuple([leaf.shape[axis] for axis in fixed]),  # type: ignore[misc]
                    "shape beyond the padded axes" if axes else "shape",
                )
            for at, leaf in list(column.leaves.items()):
                for axis in self._padded_axes(columns, column):
                    why = self._widths.misfit(leaf.shape[axis])
                    if why is not None:
                        columns.put_out(
                            at, f"{described(column.path)}: axis {axis} of shape {leaf.shape} {why}"
                        )

    def _axes_of(self, columns: Columns, column: Column) -> tuple[int, ...] | None:
        """The axes of a column that are padded; None for those whose lengths differ."""
        axes = self._axes
        if isinstance(axes, dict):
            axes = axes.get(column.name, ())
        if axes is None:
            return None if column.rank > 1 else tuple(range(column.rank))
        for axis in axes:
            if not -column.rank <= axis < column.rank:
                columns.put_all_out(
                    f"{described(column.path)}: items of rank {column.rank} have no axis {axis}"
                )
        return tuple(sorted({axis % column.rank for axis in axes}))

    def _padded_axes(self, columns: Columns, column: Column) -> tuple[int, ...]:
        axes = self._axes_of(columns, column)
        if axes is not None:
            return axes
        lengths = zip(*column.shapes, strict=True)
        return tuple([axis for axis, found in enumerate(lengths) if len(set(found)) > 1])

    def _value_of(self, columns: Columns, column: Column) -> Any:
        value: Any = self._value
        if isinstance(value, dict):
            if column.name not in value:
                columns.put_all_out(
                    f"{described(column.path)}: there is no pad value for this key; "
                    f"value={value!r} names {', '.join(map(repr, value)) or 'none'}"
                )
            value = value[column.name]
        try:
            return held(value, column)
        except ValueError as error:
            raise CollateError(str(error)) from error

    def _build(self, columns: Columns, size: int) -> Any:
        made: dict[Path, Any] = {}
        padded: dict[Path, Padded] = {}
        for column in columns.columns:
            if self._axes_of(columns, column) == ():
                made[column.path] = stacked(column, column.shapes[0], size)
                continue
            made[column.path], padded[column.path] = self._padded(columns, column, size)
        batch = self._with_extras(columns, self._nested(columns, made), padded, size)
        if self._wants_notes:
            self._note(list(made.values()), {path: padded.get(path) for path in made})
        return batch

    def _padded(self, columns: Columns, column: Column, size: int) -> tuple[Any, Padded]:
        value = self._value_of(columns, column)
        axes = self._padded_axes(columns, column)
        rule = self._widths
        lengths = [tuple([rule.kept(shape[axis]) for axis in axes]) for shape in column.shapes]
        widths = tuple([rule.width(max(found)) for found in zip(*lengths, strict=True)])
        shape = list(column.shapes[0])
        for axis, width in zip(axes, widths, strict=True):
            shape[axis] = width
        target = Target(column, (size, *shape), value)
        for at, row in enumerate(column.values):
            to, of = [slice(None)] * column.rank, [slice(None)] * column.rank
            for axis, kept in zip(axes, lengths[at], strict=True):
                to[axis] = _part(shape[axis], kept, self._side == "left")
                of[axis] = _part(row.shape[axis], kept, rule.truncate == "left")
            target.put(at, row, tuple(to), tuple(of))
        target.clear_from(len(lengths))
        note_padding(sum(map(math.prod, lengths)), len(lengths) * math.prod(widths))
        return target.array, Padded(axes, widths, lengths)

    def _told(self, columns: Columns, column: Column) -> tuple[list[int] | None, Any]:
        axes = self._axes_of(columns, column)
        if axes == ():
            return [], None
        return None if axes is None else list(axes), self._value_of(columns, column)

    def _with_notes(self, items: list[Any], made: Any) -> Any:
        batch, arrays, notes = made
        paths = list(flatten(items[0])[0])
        told: Notes = dict.fromkeys(paths)
        told.update({paths[at]: Padded(*note) for at, *note in notes})
        self._note(arrays, told)
        return batch

    # ------------------------------------------------------------------------ masks and lengths

    def _with_extras(
        self, columns: Columns, batch: Any, padded: dict[Path, Padded], size: int
    ) -> Any:
        extras: list[tuple[str, Any]] = []
        if self._mask is not None or self._lengths is not None:
            path = next(iter(padded), None)
            if path is None:
                columns.put_all_out(
                    "no key is padded: there is nothing that mask or lengths could tell of"
                )
            first = next(column for column in columns.columns if column.path == path)
            if self._mask is not None:
                extras.append((self._mask, self._mask_of(first, padded[path], size)))
            if self._lengths is not None:
                extras.append((self._lengths, _lengths_of(first, padded[path], size)))
        if not extras:
            return batch
        if not isinstance(batch, dict):
            return (batch, *(extra for _, extra in extras))
        for name, _ in extras:
            if name in batch:
                columns.put_all_out(
                    f"{name}: the items carry this key already; give the added one another name"
                )
        batch.update(extras)
        return batch

    def _mask_of(self, column: Column, padded: Padded, size: int) -> Any:
        # A batch of several axes in which none differs is padded along none.
        widths = padded.widths or column.shapes[0][:1]
        lengths = padded.lengths if padded.axes else [shape[:1] for shape in column.shapes]
        try:
            zero, one = constant(column, 0, self._mask_dtype), constant(column, 1, self._mask_dtype)
        except ValueError as error:
            raise CollateError(f"mask_dtype: {error}") from error
        mask = Target(_like(column, zero), (size, *widths), zero)
        for row, kept in enumerate(lengths):
            where = tuple(
                [
                    _part(width, one, self._side == "left")
                    for width, one in zip(widths, kept, strict=True)
                ]
            )
            shape = [found.stop - found.start for found in where]
            ones = one.expand(shape) if hasattr(one, "expand") else one
            mask.put(row, ones, where, ())
        return mask.array

    # --------------------------------------------------------------------------------- splitting

    def _note(self, arrays: list[Any], told: Notes) -> None:
        notes = self._notes
        for array in arrays:
            number = id(array)

            def forget(gone: Any, number: int = number) -> None:
                if notes.get(number, (None,))[0] is gone:
                    del notes[number]

            notes[number] = weakref.ref(array, forget), told

    def split(self, output: Any, n: int, batch: Any = None) -> list[Any]:
        """The `n` rows of what a handler made of a batch; see `Stack.split`.

        With `unpad`, without the padding that `batch` has.

        Raises:
            BatchLengthError: some part of `output` has not `n` rows, or with `unpad` not the padded widths.
            ValueError: `unpad` needs the batch that this collator made, and got another or none.
        """
        if not self._unpad:
            return self._splitting.rows(output, n)
        told = self._told_of(batch)
        first = next((note for note in told.values() if note is not None), None)

        def cut(path: Path, array: Any) -> list[Any] | None:
            name = name_of(path)
            if self._unpad is not True and name not in self._unpad:  # type: ignore[operator]
                return None
            note = told.get(path, first)
            return None if note is None else self._cut(name, array, n, note)

        return self._splitting.rows(output, n, cut)

    def _told_of(self, batch: Any) -> Notes:
        for leaf in flatten(batch)[0].values():
            known = self._notes.get(id(leaf))
            if known is not None and known[0]() is leaf:
                return known[1]
        raise ValueError(
            "unpad cuts by the lengths of a batch: split(output, n, batch) needs the one collated here"
        )

    def _cut(self, name: str, array: Any, n: int, padded: Padded) -> list[Any]:
        shape = tuple(array.shape)
        expected = dict(zip(padded.axes, padded.widths, strict=True))
        fits = len(shape) > 1 + max(expected, default=-1) and all(
            shape[1 + axis] == width for axis, width in expected.items()
        )
        if len(shape) == 0 or shape[0] != n or not fits:
            raise BatchLengthError(
                f"{name or 'the output'}: the handler returned shape {shape}; to cut the padding off, {n} rows "
                f"with {', '.join(f'{width} along axis {1 + axis}' for axis, width in expected.items())} are needed"
            )
        rows = []
        # Rows beyond the items are nobody's.
        lengths = [*padded.lengths, *[(0,) * len(padded.axes)] * (n - len(padded.lengths))]
        for row, kept in zip(array, lengths, strict=True):
            where: list[slice] = [slice(None)] * row.ndim
            for axis, width, length in zip(padded.axes, padded.widths, kept, strict=True):
                where[axis] = _part(width, length, self._side == "left")
            rows.append(self._splitting.apart(row[tuple(where)]))
        return rows


def _part(width: int, kept: int, at_end: bool) -> slice:
    return slice(width - kept, width) if at_end else slice(0, kept)


def _like(column: Column, scalar: Any) -> Column:
    other = Column(column.path, column.leaves)
    other.kind, other.dtype = column.kind, scalar.dtype
    return other


def _lengths_of(column: Column, padded: Padded, size: int) -> Any:
    rows: list[Any] = (
        list(padded.lengths) if padded.axes else [shape[:1] for shape in column.shapes]
    )
    width = len(rows[0])
    rows += [(0,) * width] * (size - len(rows))
    return constant(column, [row[0] for row in rows] if width == 1 else rows, "int64")


def _dtype_name(value: Any) -> str:
    """The name of a dtype, given as such or as numpy's or torch's."""
    name = value if isinstance(value, str) else getattr(value, "__name__", None) or str(value)
    return name.removeprefix("torch.").removesuffix("_" if name == "bool_" else "")
