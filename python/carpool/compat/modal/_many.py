"""The arguments of many calls, from an iterable for each parameter."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
)
from typing import Any

__all__ = ["acalls_of", "calls_of"]

_NONE: Any = object()


def calls_of(iterables: tuple[Iterable[Any], ...]) -> Iterator[tuple[Any, ...]]:
    """The arguments of each call, one from each iterable, until the shortest ends."""
    for one in iterables:
        if not hasattr(one, "__iter__") and hasattr(one, "__aiter__"):
            raise TypeError("an asynchronous iterable needs the .aio form of this call")
    return zip(*iterables, strict=False)


async def acalls_of(
    iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
) -> AsyncIterator[tuple[Any, ...]]:
    """The same of iterables of either kind."""
    iterators = [_aiter_of(one) for one in iterables]
    while iterators:
        values = [await anext(one, _NONE) for one in iterators]
        if any(value is _NONE for value in values):
            return
        yield tuple(values)


async def _aiter_of(iterable: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(iterable, AsyncIterable):
        async for value in iterable:
            yield value
    else:
        for value in iterable:
            yield value
