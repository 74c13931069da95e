"""What `batch` makes of a function, for type checkers. Nothing here runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from carpool._types import Rows

__all__ = ["Decorator", "Function", "Method", "Steps"]

S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Setters(Protocol):
    """What `batch` adds to a function."""

    def set_max_batch_size(self, new_max_batch_size: int) -> None: ...
    def set_batch_wait_timeout_s(self, new_batch_wait_timeout_s: float) -> None: ...


class Function(Setters, Protocol[T_contra, R_co]):
    """A batched function of one parameter; more are unchecked."""

    def __call__(self, item: T_contra, /) -> Coroutine[Any, Any, R_co]: ...


class Steps(Setters, Protocol[T_contra, R_co]):
    """A batched async generator function of one parameter; more are unchecked."""

    def __call__(self, item: T_contra, /) -> AsyncGenerator[R_co, None]: ...


class Method(Protocol[S_contra, R_co]):
    """A batched method; R is what it is, bound."""

    def __get__(self, instance: S_contra, owner: type | None = None) -> R_co: ...


class Decorator(Protocol):
    """What `batch(...)` returns."""

    @overload
    def __call__(
        self, _func: Callable[[list[T]], Coroutine[Any, Any, Rows[R]]], /
    ) -> Function[T, R]: ...
    @overload
    def __call__(
        self, _func: Callable[[S_contra, list[T]], Coroutine[Any, Any, Rows[R]]], /
    ) -> Method[S_contra, Function[T, R]]: ...
    @overload
    def __call__(self, _func: Callable[[list[T]], AsyncIterator[Rows[R]]], /) -> Steps[T, R]: ...
    @overload
    def __call__(
        self, _func: Callable[[S_contra, list[T]], AsyncIterator[Rows[R]]], /
    ) -> Method[S_contra, Steps[T, R]]: ...
    @overload
    def __call__(self, _func: Callable[..., Awaitable[Any] | AsyncIterator[Any]], /) -> Any: ...
