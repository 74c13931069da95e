"""A handler that takes each batch in one piece, as one that takes lists: collate, call, split.

Each parameter is collated on its own. An item that does not fit, in any of them, is answered by its
CollateError; the handler runs for the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from carpool._core import current_batch
from carpool._exceptions import BatchLengthError, CollateError

if TYPE_CHECKING:
    from carpool._types import Collate

__all__ = ["Collated", "arguments_of", "collated"]


def collated(
    function: Callable[..., Any], collate: Collate, *, is_async: bool, sized: bool = False
) -> Callable[..., Any]:
    """What to call with lists in place of `function`, which takes what `collate` makes of them.

    What is no list is passed on as it is: the instance of a method, a value that all requests share. It
    returns a row or an error for each item. With `sized` a list may have more items than there are requests,
    and the batch has as many rows as the list, whoever does not fit.
    """
    new = arguments_of(function, collate, sized=sized)

    def handler(*args: Any, **kwargs: Any) -> list[Any]:
        batch = new(args, kwargs)
        if not batch.left:
            return batch.all_rows([])
        try:
            output = function(*batch.args, **batch.kwargs)
        except Exception as error:
            if not batch.misfits:
                raise
            return batch.all_rows([error] * len(batch.left))
        return batch.split(output)

    async def ahandler(*args: Any, **kwargs: Any) -> list[Any]:
        batch = new(args, kwargs)
        if not batch.left:
            return batch.all_rows([])
        try:
            output = await function(*batch.args, **batch.kwargs)
        except Exception as error:
            if not batch.misfits:
                raise
            return batch.all_rows([error] * len(batch.left))
        return batch.split(output)

    return ahandler if is_async else handler


def arguments_of(
    function: Callable[..., Any], collate: Collate, *, sized: bool
) -> Callable[[tuple[Any, ...], dict[str, Any]], Collated]:
    """From the lists of a call of `function` to its arguments, collated."""
    names = list(inspect.signature(function).parameters)
    kind = Sized if sized else Collated
    return partial(kind, collate, names)


class Collated:
    """The arguments of one call with its lists collated, but for the items that do not fit."""

    __slots__ = ("args", "collate", "first", "kwargs", "left", "made", "misfits", "names")

    def __init__(
        self, collate: Collate, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.collate = collate
        self.names = names
        #: The batches, by the names of their parameters.
        self.made: dict[str, Any] = {}
        self.misfits: dict[int, CollateError] = {}
        self.first: Any = None
        if len(args) == 1 and not kwargs:
            self._begin(args[0])
            self.args = tuple(self._collate({names[0]: args[0]}).values())
            self.kwargs = kwargs
            return
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        # What a batch has for a parameter is a list of exactly this type, and nothing else is.
        lists = {name: value for name, value in values.items() if type(value) is list}
        self._begin(next(iter(lists.values())))
        values.update(self._collate(lists))
        self.args = tuple([values[name] for name, _ in zip(names, args, strict=False)])
        self.kwargs = {name: values[name] for name in kwargs}

    def _begin(self, items: list[Any]) -> None:
        self.left = list(range(len(items)))

    def _made(self, items: list[Any]) -> Any:
        """The batch of one list, of the items that are left."""
        return self.collate.collate([items[at] for at in self.left] if self.misfits else items)

    def _collate(self, lists: dict[str, list[Any]]) -> dict[str, Any]:
        """The batch of each list; of none, if no item is left."""
        while self.left:
            made = {}
            for name, items in lists.items():
                try:
                    made[name] = self._made(items)
                except CollateError as error:
                    if not error.misfits:
                        raise
                    self._put_out(error, f"{name}: " if len(lists) > 1 else "")
                    break
            else:
                self.made = made
                first = next(iter(made.values()))
                # The handler may take keys out of its dict.
                self.first = dict(first) if type(first) is dict else first
                return made
        return {}

    def with_batches(self, batches: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other batches in the places of these."""
        args = tuple(
            [batches.get(name, value) for name, value in zip(self.names, self.args, strict=False)]
        )
        return args, {name: batches.get(name, value) for name, value in self.kwargs.items()}

    def _put_out(self, error: CollateError, prefix: str) -> None:
        places = [at for at in error.misfits if 0 <= at < len(self.left)]
        if not places:
            raise CollateError(f"misfits are numbered from 0 to {len(self.left) - 1}") from error
        for at in places:
            misfit = error.misfits[at]
            self.misfits[self.left[at]] = CollateError(f"{prefix}{misfit}") if prefix else misfit
        self.left = [at for at in self.left if at not in self.misfits]

    def split(self, output: Any) -> list[Any]:
        """A row or an error for each item.

        Raises:
            BatchLengthError: the output has not a row for each item that was collated.
        """
        count = len(self.left)
        rows = self.collate.split(output, count, self.first)
        rows = rows if type(rows) is list else list(rows)
        if len(rows) != count:
            raise BatchLengthError(f"split made {len(rows)} rows for a batch of {count} items")
        return self.all_rows(rows) if self.misfits else rows

    def all_rows(self, rows: list[Any]) -> list[Any]:
        """These rows of the items that were collated, with the errors of the others in their places."""
        answers: dict[int, Any] = dict(zip(self.left, rows, strict=True))
        answers.update(self.misfits)
        return [answers[at] for at in range(len(answers))]


class Sized(Collated):
    """The same of batches that have a given number of rows, some of which are nobody's."""

    __slots__ = ("size",)

    def _begin(self, items: list[Any]) -> None:
        self.size = len(items)
        # Parts of a batch that was split are smaller than it was when it was sealed.
        self.left = list(range(min(self.size, len(current_batch()))))

    def _made(self, items: list[Any]) -> Any:
        chosen = [items[at] for at in self.left]
        collate: Any = self.collate
        if getattr(collate, "fills", False):
            return collate.collate(chosen, size=self.size)
        return collate.collate(chosen + chosen[-1:] * (self.size - len(chosen)))

    def split(self, output: Any) -> list[Any]:
        rows = self.collate.split(output, self.size, self.first)
        if len(rows) != self.size:
            raise BatchLengthError(f"split made {len(rows)} rows for a batch of {self.size} rows")
        return self.all_rows([rows[at] for at in range(len(self.left))])

    def all_rows(self, rows: list[Any]) -> list[Any]:
        made = super().all_rows(rows)
        return made + [None] * (self.size - len(made))
