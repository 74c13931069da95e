"""Rows of any length, one after the other: what attention kernels for variable lengths take."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from carpool._exceptions import BatchLengthError, CollateError

from ._checks import check_choice
from ._collator import Collator, Fill, fast
from ._copy import constant
from ._fit import Column, Columns, described
from ._packages import numpy, torch
from ._split import HowLists, Splitting, is_array
from ._tree import Path, flatten

__all__ = ["Ragged", "RaggedBatch"]

_MOST = 2**31 - 1


class RaggedBatch(NamedTuple):
    """The rows of a batch, one after the other.

    Row i is `values[cu_seqlens[i]:cu_seqlens[i + 1]]`.
    """

    #: The rows along axis 0, in their dtype: (total, ...).
    values: Any
    #: Where each row begins, and the end: int32, (n + 1,), of the same kind and device as `values`.
    cu_seqlens: Any
    #: The longest row.
    max_seqlen: int


class Ragged(Collator):
    """Puts items one after the other along their first axis: a `RaggedBatch`, for dicts one per key.

    ```python
    import numpy as np
    from carpool.collate import Ragged

    ragged = Ragged()
    batch = ragged.collate([np.array([1, 2, 3]), np.array([4])])
    assert batch.values.tolist() == [1, 2, 3, 4] and batch.cu_seqlens.tolist() == [0, 3, 4]
    first, second = ragged.split(batch.values * 10, 2, batch)
    assert first.tolist() == [10, 20, 30] and second.tolist() == [40]
    ```

    Args:
        answers: what the handler's arrays hold: "items", a row for each item; "tokens", a row for each row of
            `values`, which go back by length; None tells them by their number, tokens first. A head is
            measured by the input of the same name, else by the first one.
        lists, views, fill: as in `Stack`; rows beyond the items are of length 0.

    Raises:
        TypeError, ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        answers: str | None = None,
        lists: HowLists = "rows",
        views: bool = False,
        fill: Fill = "zeros",
    ) -> None:
        super().__init__(lists, views, fill)
        check_choice("answers", answers, ("items", "tokens", None))
        self._answers = answers
        self._fast = fast("ragged", joined=RaggedBatch)

    _of_one_kind = True

    def _fit(self, columns: Columns) -> None:
        for column in columns.columns:
            if column.rank == 0 and column.leaves:
                columns.put_all_out(
                    f"{described(column.path)}: a number has no axis along which rows could follow one another"
                )
            columns.ask(column, lambda leaf: leaf.shape[1:], "shape beyond the first axis")

    def _batch_of(self, column: Column, size: int) -> RaggedBatch:
        lengths = [shape[0] for shape in column.shapes]
        ends = [0, *accumulate(lengths)]
        ends += ends[-1:] * (size - len(lengths))
        if ends[-1] > _MOST:
            raise CollateError(f"{described(column.path)}: {ends[-1]} rows are too many for int32")
        values = column.values
        if column.kind == "array":
            joined = numpy().concatenate(values, dtype=column.dtype)
        else:
            joined = torch().cat(values)
        return RaggedBatch(joined, constant(column, ends, "int32"), max(lengths))

    def split(self, output: Any, n: int, batch: Any = None) -> list[Any]:
        """The rows of `output`, one for each item; see `Stack.split`.

        A `RaggedBatch` in the output is split by its own lengths, an array with a row for each token by those
        of `batch`.

        Raises:
            BatchLengthError: some part of `output` has not `n` rows, nor one for each token.
        """
        ends = {} if batch is None or self._answers == "items" else _ends_of(batch)

        def cut(path: tuple[Any, ...], array: Any) -> list[Any] | None:
            known = ends.get(path, next(iter(ends.values()), None))
            found = len(array) if array.ndim else 0
            if known is None or known[-1] != found:
                if self._answers == "tokens":
                    expected = "an unknown number of" if known is None else known[-1]
                    raise BatchLengthError(
                        f"the handler returned {found} rows for {expected} tokens"
                    )
                return None
            return _pieces(self._splitting, array, known, n)

        return _Ragging(*self._splitting).rows(output, n, cut)


class _Ragging(Splitting):
    """Splits what is ragged by its own lengths."""

    __slots__ = ()

    def _of(self, output: Any, n: int, path: tuple[Any, ...], cut: Any) -> list[Any]:
        if isinstance(output, RaggedBatch):
            return _pieces(self, output.values, output.cu_seqlens.tolist(), n)
        return super()._of(output, n, path, cut)


def _pieces(splitting: Splitting, array: Any, ends: list[int], n: int) -> list[Any]:
    if len(ends) != n + 1:
        raise BatchLengthError(f"the handler returned {len(ends) - 1} rows for a batch of {n}")
    return [splitting.apart(array[start:end]) for start, end in pairwise(ends)]


def _ends_of(batch: Any) -> dict[Path, list[int]]:
    """Where rows end, by the path of each ragged part of a batch."""
    if isinstance(batch, RaggedBatch):
        return {(): batch.cu_seqlens.tolist()}
    leaves, _ = flatten(batch)
    return {
        path[:-1]: leaf.tolist()
        for path, leaf in leaves.items()
        if path and path[-1] == "cu_seqlens" and is_array(leaf)
    }
