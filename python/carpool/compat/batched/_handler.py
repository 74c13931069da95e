"""What `batched`'s processors hand to carpool as the handler: the user's function between two conversions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, ValuesView
from typing import Any, NamedTuple

from carpool.compat._front import is_coroutine_function, named_as

from .types import BatchOutputLengthError

__all__ = ["Shape", "handler_of", "is_method", "plain_shape"]


class Shape(NamedTuple):
    """How a batch of items becomes the arguments of the user's function, and its output a row per item."""

    arguments: Callable[[list[Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    rows: Callable[[Any, int], Any]


def is_method(function: Any) -> bool:
    """Whether it takes an instance before its items, by the rule of `batched`: named `self` or `cls`, and not alone."""
    names = list(inspect.signature(function).parameters)
    return len(names) > 1 and names[0] in ("self", "cls")


def handler_of(function: Callable[..., Any], shape: Shape, *, method: bool) -> Callable[..., Any]:
    """A handler of one list, after the instance if it is a method."""
    arguments, rows = shape
    handler: Callable[..., Any]
    if is_coroutine_function(function):

        async def amany(bound: tuple[Any, ...], items: list[Any]) -> Any:
            args, kwargs = arguments(items)
            return rows(await function(*bound, *args, **kwargs), len(items))

        async def amethod(instance: Any, items: list[Any]) -> Any:
            return await amany((instance,), items)

        async def afunction(items: list[Any]) -> Any:
            return await amany((), items)

        handler = amethod if method else afunction
    else:

        def many(bound: tuple[Any, ...], items: list[Any]) -> Any:
            args, kwargs = arguments(items)
            return rows(function(*bound, *args, **kwargs), len(items))

        def plain_method(instance: Any, items: list[Any]) -> Any:
            return many((instance,), items)

        def plain_function(items: list[Any]) -> Any:
            return many((), items)

        handler = plain_method if method else plain_function
    while isinstance(function, functools.partial):
        function = function.func
    return named_as(handler, function)


def check_length(found: int, count: int) -> None:
    """
    Raises:
        BatchOutputLengthError: there are not as many rows as items.
    """
    if found != count:
        raise BatchOutputLengthError(
            f"Batch output length ({found}) does not match batch input length ({count})"
        )


def _rows(output: Any, count: int) -> Any:
    if isinstance(output, ValuesView):
        output = list(output)
    # What has no length at all is refused by the batcher, with its kind named.
    if hasattr(type(output), "__len__"):
        check_length(len(output), count)
    return output


#: A list of items in, a row per item out.
plain_shape = Shape(lambda items: ((items,), {}), _rows)
