"""Many calls: their arguments, from an iterable for each parameter, and their results, for loops of either kind."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any

__all__ = ["Results", "acalls_of", "calls_of"]

_NONE: Any = object()


class Results:
    """The results of a `map`, for `for` and `next`, or for `async for`.

    Args:
        results: them, for a thread.
        aresults: makes them for a coroutine.
    """

    def __init__(
        self, results: Generator[Any, None, None], aresults: Callable[[], AsyncIterator[Any]]
    ) -> None:
        self._results, self._aresults = results, aresults

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._results)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._aresults()

    def close(self) -> None:
        """Gives up what is left."""
        self._results.close()


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
