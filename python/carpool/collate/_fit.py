"""Who fits into a batch: what most of the items are, one question after the other.

First the nesting, then for each leaf its kind (array, or tensor on which device), its dtype and its rank, then
what the collator asks. On a tie the earliest item's answer counts. Who is out at one question is not asked
the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, NoReturn

from carpool._exceptions import CollateError

from ._leaves import ANY, Leaf, Unfit, read
from ._tree import Path, flatten, name_of, structure_of

__all__ = ["Column", "Columns", "described"]


def described(path: Path) -> str:
    """A leaf, as an error calls it."""
    return name_of(path) or "the item"


class Column:
    """One leaf of all items: what is common to them, and each by its place in the batch."""

    def __init__(self, path: Path, leaves: dict[int, Leaf]) -> None:
        self.path = path
        self.name = name_of(path)
        self.leaves = leaves
        self.kind: str = "array"
        self.dtype: Any = ANY
        self.rank = 0

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the rows, in order."""
        return [leaf.shape for leaf in self.leaves.values()]

    @property
    def values(self) -> list[Any]:
        """The rows, in order."""
        return [leaf.value for leaf in self.leaves.values()]


class Columns:
    """The items of a batch by leaf, and those that do not fit."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.misfits: dict[int, CollateError] = {}
        self.columns: list[Column] = []
        self.like: Any = None
        flat = {at: one for at in range(len(items)) if (one := self._flat(at)) is not None}
        forms = {at: structure_of(*one) for at, one in flat.items()}
        if not forms:
            return
        form = _most(list(forms.values()))
        # Any item of the form will do; the first one tells the order of keys.
        first = next(at for at in forms if forms[at] == form)
        self.like = items[first]
        for at in forms:
            if forms[at] != form:
                self.put_out(at, _difference(*flat[at], *flat[first]))
        fitting = [at for at in forms if at not in self.misfits]
        for path in flat[first][0]:
            read = {at: self._read(at, path, flat[at][0][path]) for at in fitting}
            column = {at: leaf for at, leaf in read.items() if leaf is not None}
            self.columns.append(Column(path, column))
        self._drop()
        for made in self.columns:
            self._agree(made)

    def _flat(self, at: int) -> tuple[dict[Path, Any], dict[Path, Any]] | None:
        """The leaves and containers of one item; None where it cannot be looked into, and is out."""
        try:
            return flatten(self.items[at])
        except MemoryError:
            raise
        except Exception as error:
            self.put_out(at, f"the item cannot be looked into: {_told(error)}", error)
            return None

    def _read(self, at: int, path: Path, value: Any) -> Leaf | None:
        """One leaf of one item; None where nothing can be made of it, and the item is out."""
        try:
            return read(value)
        except Unfit as error:
            self.put_out(at, f"{described(path)}: {error}")
        except (ImportError, MemoryError):
            # It is not the item that is wrong.
            raise
        except Exception as error:
            text = f"{described(path)}: a {type(value).__name__} cannot be read: {_told(error)}"
            self.put_out(at, text, error)
        return None

    def put_out(self, at: int, text: str, cause: Exception | None = None) -> None:
        """One item does not fit."""
        if at not in self.misfits:
            self.misfits[at] = error = CollateError(text)
            if cause is not None:
                # Its trace leads to all items of the batch.
                error.__cause__ = cause.with_traceback(None)

    def put_all_out(self, text: str) -> NoReturn:
        """None fits: it is the collator that is wrong."""
        raise CollateError(text)

    def _drop(self) -> None:
        for column in self.columns:
            for at in self.misfits.keys() & column.leaves.keys():
                del column.leaves[at]

    def ask(
        self,
        column: Column,
        question: Callable[[Leaf], Hashable],
        what: str,
        shown: Callable[[Any], str] = str,
        wild: Callable[[Leaf], bool] = lambda leaf: False,
    ) -> Any:
        """What most rows of a column answer; the others are out. Those that are `wild` have no vote.

        None where nobody has an answer.
        """
        answers = {at: question(leaf) for at, leaf in column.leaves.items() if not wild(leaf)}
        if not answers:
            return None
        most = _most(list(answers.values()))
        for at, answer in answers.items():
            if answer != most:
                own = column.leaves[at].shape
                theirs = next(
                    leaf.shape for n, leaf in column.leaves.items() if answers.get(n) == most
                )
                self.put_out(
                    at,
                    f"{described(column.path)}: {what} {shown(answer)} (shape {own}) does not fit the "
                    f"batch, where it is {shown(most)} (shape {theirs})",
                )
        self._drop()
        return most

    def _agree(self, column: Column) -> None:
        column.kind = self.ask(column, lambda leaf: leaf.kind, "the kind") or "array"
        column.dtype = self.ask(
            column, lambda leaf: leaf.dtype, "dtype", wild=lambda leaf: leaf.dtype is ANY
        )
        column.rank = self.ask(column, lambda leaf: len(leaf.shape), "rank") or 0
        for at, leaf in column.leaves.items():
            if leaf.dtype is ANY and column.dtype is not ANY:
                column.leaves[at] = leaf._replace(
                    dtype=column.dtype, value=leaf.value.astype(column.dtype)
                )
        if column.dtype is ANY and column.leaves:
            column.dtype = next(iter(column.leaves.values())).value.dtype

    def settle(self) -> None:
        """Raises for the items that are out, if any.

        Raises:
            CollateError: with an error for each of them in `misfits`.
        """
        if not self.misfits:
            return
        first = min(self.misfits)
        count = len(self.misfits)
        others = f" (and {count - 1} more)" if count > 1 else ""
        raise CollateError(f"item {first}: {self.misfits[first]}{others}", misfits=self.misfits)


def _told(error: Exception) -> str:
    """An error of an item's own, whose text may be another one."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _most(answers: list[Any]) -> Any:
    """The commonest; on a tie the one that came first."""
    counts = Counter(answers)
    return max(counts, key=lambda answer: counts[answer])


def _difference(
    leaves: dict[Path, Any],
    containers: dict[Path, Any],
    like: dict[Path, Any],
    like_containers: dict[Path, Any],
) -> str:
    missing = [described(path) for path in like if path not in leaves]
    extra = [described(path) for path in leaves if path not in like]
    if () in containers and () in like_containers:
        parts = []
        if missing:
            parts.append(f"it lacks {', '.join(missing)}")
        if extra:
            parts.append(f"it has {', '.join(extra)}, which the batch has not")
        if parts:
            return f"the item does not fit the batch: {' and '.join(parts)}"
    own, theirs = containers.get(()), like_containers.get(())
    names = [kind.__name__ if kind is not None else "no container" for kind in (own, theirs)]
    if names[0] != names[1]:
        return f"the item is {names[0]}, the batch is of {names[1]}"
    return "the item is nested differently from those of the batch"
