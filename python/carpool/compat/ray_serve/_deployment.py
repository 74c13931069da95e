"""`serve.deployment` for batched functions: Ray takes classes and plain functions, and nothing that is like one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ._batch import BatchedCallable

__all__ = ["taking_batched_functions"]


def taking_batched_functions(deployment: Callable[..., Any]) -> Callable[..., Any]:
    """Ray's decorator `deployment`, for functions made by `batch` as well."""

    @functools.wraps(deployment)
    def decorate(_func_or_class: Any = None, *args: Any, **options: Any) -> Any:
        if _func_or_class is not None:
            return deployment(_plain(_func_or_class), *args, **options)
        made = deployment(*args, **options)
        return lambda func_or_class: made(_plain(func_or_class))

    return decorate


def _plain(given: Any) -> Any:
    """A batched function as a plain one; it travels to replicas by value, and each makes a batcher of its own."""
    if not isinstance(given, BatchedCallable):
        return given
    batched: Any = given
    made: Any
    if given.streams:

        def steps(*args: Any, **kwargs: Any) -> Any:
            return batched(*args, **kwargs)

        made = steps
    else:

        async def result(*args: Any, **kwargs: Any) -> Any:
            return await batched(*args, **kwargs)

        made = result
    return given.dress(made)
