"""Batches that a caller has in one piece: taken apart into calls, and the answers put together again."""

from __future__ import annotations

from typing import Any

from carpool._exceptions import CollateError

# Here and not at first use, which a fork may meet half done.
from carpool.collate import Stack
from carpool.collate._split import Splitting, is_array
from carpool.collate._tree import flatten

__all__ = ["apart", "together"]


def apart(features: Any) -> list[Any]:
    """The items of a dict of batches (or an array, list, tuple or dataclass of such), nested at will.

    Items are views of arrays.

    Raises:
        BatchLengthError: the batches have different lengths.
        TypeError: there is no length to go by.
    """
    first = next(iter(flatten(features)[0].values()), None)
    try:
        count = len(first)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"features are batches, each with a row per call; there is none in a {type(features).__name__}"
        ) from None
    return Splitting(views=True).rows(features, count)


def together(answers: list[Any]) -> Any:
    """Answers of calls in one piece: arrays stacked where their shapes are equal, dicts and tuples by key and place.

    Everything else is a list. The first exception among them is raised.
    """
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return _joined(answers)


def _joined(answers: list[Any]) -> Any:
    kinds = set(map(type, answers))
    if len(kinds) != 1:
        return answers
    first = answers[0]
    if type(first) is dict and all(one.keys() == first.keys() for one in answers):
        return {key: _joined([one[key] for one in answers]) for key in first}
    if isinstance(first, tuple) and all(len(one) == len(first) for one in answers):
        columns = [_joined(list(column)) for column in zip(*answers, strict=True)]
        make = getattr(type(first), "_make", tuple)
        return make(columns)
    if is_array(first) or hasattr(first, "dtype"):
        try:
            return Stack().collate(answers)
        except CollateError:
            return answers
    return answers
