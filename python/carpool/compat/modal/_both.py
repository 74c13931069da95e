"""Calls in two forms: `f.remote(x)` blocks, `f.remote.aio(x)` is for coroutines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

__all__ = ["Both"]

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")


class Both(Generic[P, R, A]):
    """A call that blocks, with its other form as `aio`."""

    def __init__(self, blocking: Callable[P, R], aio: Callable[P, A]) -> None:
        self._blocking = blocking
        self.aio: Callable[P, A] = aio
        self.__doc__ = blocking.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._blocking(*args, **kwargs)
